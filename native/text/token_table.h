// The texts of a vocabulary by id, and the ids by text: one string and two arrays, however many tokens there are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pocketlm {

class TokenTable {
 public:
  // Throws FormatError where a text is empty, stands twice or has more than 2^31 bytes with the others.
  explicit TokenTable(std::span<const std::string_view> texts);

  int32_t size() const { return int32_t(ends_.size()) - 1; }
  std::string_view text(int32_t id) const {
    const size_t begin = ends_[size_t(id)];
    return std::string_view(arena_).substr(begin, ends_[size_t(id) + 1] - begin);
  }
  int32_t find(std::string_view text) const;  // -1: no token
  size_t bytes() const;

 private:
  size_t slot_of(std::string_view text) const;  // where it stands, or the empty slot where it would

  std::string arena_;
  std::vector<uint32_t> ends_;   // token i is [ends[i], ends[i + 1])
  std::vector<int32_t> slots_;   // open addressing: ids, -1 where empty
  uint64_t seed_;                // a file cannot know which texts collide
};

// Characters of UTF-8.
int64_t count_chars(std::string_view text);

}  // namespace pocketlm
