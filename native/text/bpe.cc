#include "text/bpe.h"

#include <algorithm>
#include <cstdio>
#include <queue>
#include <string>
#include <utility>

namespace pocketlm {
namespace {

// A token of the word as a link of a list; one that was merged into its left neighbour has the id -1.
struct Symbol {
  int32_t id, previous, next;  // places in the list; -1: none
};

// A merge that was possible when it was found. The one of the lowest rank, and of these the leftmost, is done first.
struct Candidate {
  Merge merge;
  int32_t place;

  bool operator<(const Candidate& other) const {
    return merge.rank != other.merge.rank ? merge.rank > other.merge.rank : place > other.place;
  }
};

size_t length_of_character(char first) {
  const auto byte = uint8_t(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

class Merging {
 public:
  Merging(const TokenTable& tokens, const MergeRules& rules, std::vector<int32_t>& ids, size_t begin)
      : tokens_(tokens), rules_(rules) {
    const auto count = int32_t(ids.size() - begin);
    symbols_.reserve(size_t(count));
    for (int32_t i = 0; i < count; ++i)
      symbols_.push_back({ids[begin + size_t(i)], i - 1, i + 1 < count ? i + 1 : -1});
    for (int32_t i = 0; i + 1 < count; ++i) consider(i);
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      merge(top);
    }
    ids.resize(begin);
    for (const Symbol& symbol : symbols_)
      if (symbol.id >= 0) ids.push_back(symbol.id);
  }

 private:
  void consider(int32_t place) {
    const Symbol& left = symbols_[size_t(place)];
    const Merge merge = rules_.find(tokens_, left.id, symbols_[size_t(left.next)].id, scratch_);
    if (merge.id >= 0) queue_.push({merge, place});
  }

  void merge(const Candidate& top) {
    Symbol& left = symbols_[size_t(top.place)];
    if (left.id < 0 || left.next < 0) return;
    Symbol& right = symbols_[size_t(left.next)];
    // The pair may be another by now; one that builds the same token is as good.
    if (rules_.find(tokens_, left.id, right.id, scratch_).id != top.merge.id) return;
    left.id = top.merge.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols_[size_t(left.next)].previous = top.place;
    if (left.previous >= 0) consider(left.previous);
    if (left.next >= 0) consider(top.place);
  }

  const TokenTable& tokens_;
  const MergeRules& rules_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> queue_;
  std::string scratch_;
};

}  // namespace

Bpe::Bpe(TokenTable tokens, MergeRules rules, BpeOptions options)
    : tokens_(std::move(tokens)), rules_(std::move(rules)), options_(options) {
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    byte_tokens_[size_t(byte)] = tokens_.find(text);
  }
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges)
    if (const int32_t id = tokens_.find(word); id >= 0) return ids.push_back(id);
  const size_t begin = ids.size();
  append_characters(word, ids);
  if (ids.size() - begin > 1) Merging(tokens_, rules_, ids, begin);
}

bool Bpe::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  const auto token = [this](char c) { return byte_tokens_[uint8_t(c)]; };
  if (!std::ranges::all_of(character, [&](char c) { return token(c) >= 0; })) return false;
  for (const char c : character) ids.push_back(token(c));
  return true;
}

void Bpe::append_characters(std::string_view word, std::vector<int32_t>& ids) const {
  bool pending = false;  // an unknown token, put out before the next known character
  for (size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, length_of_character(word[at]));
    at += character.size();
    if (const int32_t id = tokens_.find(character); id >= 0) {
      if (std::exchange(pending, false)) ids.push_back(options_.unknown);
      ids.push_back(id);
    } else if (!options_.byte_fallback || !append_bytes(character, ids)) {
      pending = options_.unknown >= 0;
    }
  }
  if (pending) ids.push_back(options_.unknown);
}

}  // namespace pocketlm
