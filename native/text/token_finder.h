// Finds whole tokens in a text: the leftmost, and of those that begin there the longest.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "text/token_table.h"

namespace pocketlm {

class TokenFinder {
 public:
  struct Found {
    size_t begin, end;  // bytes of the text
    int32_t id;         // -1: nothing more is found
  };

  // `tokens` must live as long as the finder.
  TokenFinder(const TokenTable& tokens, std::span<const int32_t> ids);

  // The first token at or after byte `from`.
  Found next(std::string_view text, size_t from) const;

 private:
  const TokenTable& tokens_;
  std::vector<int32_t> ids_;           // by their texts
  std::array<uint32_t, 257> firsts_;   // tokens that begin with byte b are ids_[firsts_[b]] to ids_[firsts_[b + 1]]
};

}  // namespace pocketlm
