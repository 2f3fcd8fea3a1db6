// Words to token ids by merging pairs, as the `tokenizers` library does it (models/bpe), to the id.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/merge_rules.h"
#include "text/token_table.h"

namespace pocketlm {

struct BpeOptions {
  bool ignore_merges = false;  // a word that is a token is that token, whether merges build it or not
  bool byte_fallback = false;  // characters that are no tokens become "<0xNN>" tokens
  int32_t unknown = -1;        // for the rest; a run of them is one token. -1: they are left out
};

class Bpe {
 public:
  Bpe(TokenTable tokens, MergeRules rules, BpeOptions options);

  const TokenTable& tokens() const { return tokens_; }
  size_t bytes() const { return tokens_.bytes() + rules_.bytes(); }

  // Appends the ids of a word. Thread-safe.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  bool append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void append_characters(std::string_view word, std::vector<int32_t>& ids) const;

  TokenTable tokens_;
  MergeRules rules_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_tokens_;  // -1 where there is none
};

}  // namespace pocketlm
