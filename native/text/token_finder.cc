#include "text/token_finder.h"

#include <algorithm>

namespace pocketlm {
namespace {

bool begins_before(std::string_view text, char byte, size_t depth) {
  return text.size() <= depth || uint8_t(text[depth]) < uint8_t(byte);
}

}  // namespace

TokenFinder::TokenFinder(const TokenTable& tokens, std::span<const int32_t> ids) : tokens_(tokens), ids_(ids.begin(), ids.end()) {
  std::ranges::sort(ids_, {}, [&](int32_t id) { return tokens.text(id); });
  size_t at = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    firsts_[byte] = uint32_t(at);
    while (at < ids_.size() && uint8_t(tokens.text(ids_[at])[0]) == byte) ++at;
  }
  firsts_[256] = uint32_t(at);
}

TokenFinder::Found TokenFinder::next(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    const auto byte = uint8_t(text[begin]);
    // Those left after `depth` bytes agree with the text in all of them: the shortest of them comes first.
    auto low = ids_.begin() + firsts_[byte], high = ids_.begin() + firsts_[byte + 1];
    Found found{begin, begin, -1};
    for (size_t depth = 1; low != high; ++depth) {
      if (tokens_.text(*low).size() == depth) found = {begin, begin + depth, *low++};
      if (begin + depth == text.size()) break;
      const char next = text[begin + depth];
      low = std::partition_point(low, high, [&](int32_t id) { return begins_before(tokens_.text(id), next, depth); });
      high = std::partition_point(low, high, [&](int32_t id) { return tokens_.text(id)[depth] == next; });
    }
    if (found.id >= 0) return found;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace pocketlm
