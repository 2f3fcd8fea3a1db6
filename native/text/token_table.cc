#include "text/token_table.h"

#include <bit>
#include <random>

#include "base/error.h"

namespace pocketlm {

TokenTable::TokenTable(std::span<const std::string_view> texts) : seed_(std::random_device{}()) {
  size_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  if (bytes > INT32_MAX || texts.size() > INT32_MAX / 4) throw FormatError("tokens are too many");
  arena_.reserve(bytes);
  ends_.reserve(texts.size() + 1);
  ends_.push_back(0);
  for (const std::string_view text : texts) {
    arena_ += text;
    ends_.push_back(uint32_t(arena_.size()));
  }
  slots_.assign(std::bit_ceil(2 * texts.size() + 1), -1);
  for (int32_t id = 0; id < size(); ++id) {
    if (text(id).empty()) throw FormatError("tokens[" + std::to_string(id) + "] is empty");
    int32_t& slot = slots_[slot_of(text(id))];
    if (slot >= 0) throw FormatError("tokens[" + std::to_string(id) + "] repeats tokens[" + std::to_string(slot) + "]");
    slot = id;
  }
}

int32_t TokenTable::find(std::string_view text) const { return slots_[slot_of(text)]; }

size_t TokenTable::bytes() const { return arena_.capacity() + 4 * (ends_.capacity() + slots_.capacity()); }

size_t TokenTable::slot_of(std::string_view text) const {
  uint64_t hash = seed_ ^ 0xcbf29ce484222325;  // FNV-1a, with the high bits folded in: the low ones choose the slot
  for (const char c : text) hash = (hash ^ uint8_t(c)) * 0x100000001b3;
  hash ^= hash >> 32;
  size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot] >= 0 && this->text(slots_[slot]) != text) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

int64_t count_chars(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (uint8_t(c) & 0xc0) != 0x80;
  return count;
}

}  // namespace pocketlm
