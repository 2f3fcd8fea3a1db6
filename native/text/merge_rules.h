// What two neighbouring tokens become, and which pair goes first.
//
// Either a file gives its merges in order, or they follow from the vocabulary: any two tokens whose joined text is a
// token. Implied merges need no table: joining the texts and looking the result up says both whether and how soon.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_table.h"

namespace pocketlm {

struct Merge {
  uint64_t rank = 0;  // smaller goes first
  int32_t id = -1;    // -1: the two stay two
};

class MergeRules {
 public:
  // `forbidden` tokens are never built. Throws FormatError where a line is not two tokens of `tokens` with one space
  // between them, and another token their joined text.
  static MergeRules given(const TokenTable& tokens, std::span<const std::string_view> lines, std::vector<bool> forbidden);

  // The rank of an implied merge is that of the token it builds. With `order` (one number a token, smaller first) the
  // longer left half goes before, then the longer right half, then the smaller id; without, tokens go by id and the
  // shorter left half goes before. Throws FormatError for a token of more than kMostChars characters.
  static MergeRules implied(const TokenTable& tokens, std::vector<uint32_t> order, std::vector<bool> forbidden);

  static constexpr int64_t kMostChars = 256;  // of implied merges: it bounds the work a pair can take

  // `scratch` is any string; it saves making one.
  Merge find(const TokenTable& tokens, int32_t left, int32_t right, std::string& scratch) const;
  size_t bytes() const;

 private:
  struct Pair {
    int32_t left = -1, right = 0;  // left -1: an empty slot
    uint32_t rank = 0;
    int32_t id = 0;
  };
  size_t slot_of(int32_t left, int32_t right) const;

  bool implied_ = false;
  std::vector<bool> forbidden_;
  std::vector<uint32_t> order_;
  std::vector<Pair> pairs_;  // open addressing
  uint64_t multiplier_ = 1;  // odd, drawn anew: a file cannot know which pairs collide
};

}  // namespace pocketlm
