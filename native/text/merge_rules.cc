#include "text/merge_rules.h"

#include <algorithm>
#include <bit>
#include <random>
#include <utility>

#include "base/error.h"

namespace pocketlm {
namespace {

// As much of a text as a message should show, whole characters.
std::string beginning(std::string_view text) {
  size_t end = std::min<size_t>(text.size(), 80);
  while (end < text.size() && end > 0 && (uint8_t(text[end]) & 0xc0) == 0x80) --end;
  return std::string(text.substr(0, end));
}

}  // namespace

MergeRules MergeRules::given(const TokenTable& tokens, std::span<const std::string_view> lines, std::vector<bool> forbidden) {
  MergeRules rules;
  rules.forbidden_ = std::move(forbidden);
  std::random_device random;
  rules.multiplier_ = uint64_t{random()} << 32 | random() | 1;
  rules.pairs_.resize(std::bit_ceil(lines.size() * 3 / 2 + 2));
  std::string joined;
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t space = lines[i].find(' ');
    if (space == std::string_view::npos || lines[i].find(' ', space + 1) != std::string_view::npos)
      throw FormatError("merges[" + std::to_string(i) + "] should be two tokens with one space between them, found '" + beginning(lines[i]) + "'");
    const std::string_view halves[] = {lines[i].substr(0, space), lines[i].substr(space + 1)};
    joined.assign(halves[0]).append(halves[1]);
    const int32_t id = tokens.find(joined);
    if (id >= 0 && rules.forbidden_[size_t(id)]) continue;
    const int32_t left = tokens.find(halves[0]), right = tokens.find(halves[1]);
    if (left < 0 || right < 0 || id < 0)
      throw FormatError("merges does not make a tokenizer: [" + std::to_string(i) + "] names or builds what is no token: '" + beginning(lines[i]) + "'");
    rules.pairs_[rules.slot_of(left, right)] = {left, right, uint32_t(i), id};
  }
  return rules;
}

MergeRules MergeRules::implied(const TokenTable& tokens, std::vector<uint32_t> order, std::vector<bool> forbidden) {
  for (int32_t id = 0; id < tokens.size(); ++id)
    if (const int64_t chars = count_chars(tokens.text(id)); chars > kMostChars)
      throw FormatError("tokens[" + std::to_string(id) + "] has " + std::to_string(chars) + " characters; a SentencePiece token has at most " +
                        std::to_string(kMostChars));
  MergeRules rules;
  rules.implied_ = true;
  rules.forbidden_ = std::move(forbidden);
  rules.order_ = std::move(order);
  return rules;
}

Merge MergeRules::find(const TokenTable& tokens, int32_t left, int32_t right, std::string& scratch) const {
  if (!implied_) {
    const Pair& pair = pairs_[slot_of(left, right)];
    return pair.left < 0 ? Merge{} : Merge{pair.rank, pair.id};
  }
  const std::string_view halves[] = {tokens.text(left), tokens.text(right)};
  scratch.assign(halves[0]).append(halves[1]);
  const int32_t id = tokens.find(scratch);
  if (id < 0 || forbidden_[size_t(id)]) return {};
  const auto chars = uint64_t(count_chars(halves[0]));  // below kMostChars: the joined text is a token
  if (order_.empty()) return {uint64_t(id) << 8 | chars, id};
  const uint64_t rank = uint64_t(order_[size_t(id)]) << 40 | (255 - chars) << 32 |
                        (255 - uint64_t(count_chars(halves[1]))) << 24 | (uint64_t(id) & 0xffffff);
  return {rank, id};
}

size_t MergeRules::bytes() const {
  return pairs_.capacity() * sizeof(Pair) + 4 * order_.capacity() + forbidden_.capacity() / 8;
}

size_t MergeRules::slot_of(int32_t left, int32_t right) const {
  const size_t mask = pairs_.size() - 1;
  const uint64_t hash = (uint64_t(uint32_t(left)) << 32 | uint32_t(right)) * multiplier_;
  size_t slot = (hash >> 32 ^ hash >> 48) & mask;
  while (pairs_[slot].left >= 0 && (pairs_[slot].left != left || pairs_[slot].right != right)) slot = (slot + 1) & mask;
  return slot;
}

}  // namespace pocketlm
