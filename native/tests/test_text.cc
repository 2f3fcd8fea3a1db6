// The vocabulary in the core under the sanitizers: against merging in the plainest way, and with files' nonsense. The
// comparison with the tokenizers library is in tests/oracle.
#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "text/bpe.h"
#include "text/token_finder.h"

using namespace pocketlm;

namespace {

std::vector<std::string_view> views(const std::vector<std::string>& texts) { return {texts.begin(), texts.end()}; }

// Single letters, and longer tokens that two others build; merges[i] builds tokens[letters + i].
struct Vocabulary {
  std::vector<std::string> tokens, merges;
};

Vocabulary random_vocabulary(std::mt19937& random, size_t merges) {
  Vocabulary v{{"a", "b", "c", "é", "漢"}, {}};
  while (v.merges.size() < merges) {
    const std::string left = v.tokens[random() % v.tokens.size()], right = v.tokens[random() % v.tokens.size()];
    const std::string joined = left + right;
    if (joined.size() > 24 || std::ranges::find(v.tokens, joined) != v.tokens.end()) continue;
    v.merges.push_back(left + " " + right);
    v.tokens.push_back(joined);
  }
  return v;
}

// The pair of the lowest rank first, the leftmost of these, looked for anew each time.
std::vector<int32_t> merge_plainly(const TokenTable& tokens, const MergeRules& rules, std::vector<int32_t> ids) {
  std::string scratch;
  for (;;) {
    Merge best;
    size_t place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Merge merge = rules.find(tokens, ids[i], ids[i + 1], scratch);
      if (merge.id >= 0 && (best.id < 0 || merge.rank < best.rank)) best = merge, place = i;
    }
    if (best.id < 0) return ids;
    ids[place] = best.id;
    ids.erase(ids.begin() + int64_t(place) + 1);
  }
}

void test_merging() {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const Vocabulary v = random_vocabulary(random, 3 + random() % 40);
    const auto make_rules = [&](const TokenTable& table) {
      if (round % 3 == 0) return MergeRules::given(table, views(v.merges), std::vector<bool>(v.tokens.size()));
      std::vector<uint32_t> order(round % 3 == 1 ? 0 : v.tokens.size());
      for (uint32_t& rank : order) rank = random() % 8;
      return MergeRules::implied(table, order, std::vector<bool>(v.tokens.size()));
    };
    const TokenTable table(views(v.tokens));
    const MergeRules rules = make_rules(table);
    const Bpe bpe(table, rules, {});
    for (int words = 0; words < 40; ++words) {
      std::string word;
      std::vector<int32_t> letters;
      for (size_t i = random() % 60; i > 0; --i) {
        letters.push_back(int32_t(random() % 5));
        word += v.tokens[size_t(letters.back())];
      }
      std::vector<int32_t> ids;
      bpe.encode(word, ids);
      CHECK(ids == merge_plainly(table, rules, letters));
      std::string text;
      for (const int32_t id : ids) text += table.text(id);
      CHECK(text == word);
    }
  }
}

void test_what_is_no_token() {
  const std::vector<std::string> tokens{"a", "?", "<0xC3>", "<0xA9>", "aa"};
  const TokenTable table(views(tokens));
  const auto encode = [&](std::string_view word, BpeOptions options) {
    const Bpe bpe(table, MergeRules::implied(table, {}, std::vector<bool>(tokens.size())), options);
    std::vector<int32_t> ids;
    bpe.encode(word, ids);
    return ids;
  };
  CHECK((encode("axya", {.unknown = 1}) == std::vector<int32_t>{0, 1, 0}));
  CHECK((encode("xax", {}) == std::vector<int32_t>{0}));
  CHECK((encode("é", {.byte_fallback = true}) == std::vector<int32_t>{2, 3}));
  CHECK((encode("aé漢", {.byte_fallback = true, .unknown = 1}) == std::vector<int32_t>{0, 2, 3, 1}));
  CHECK((encode("aa", {.ignore_merges = true}) == std::vector<int32_t>{4}));
  CHECK(encode("", {}).empty());
  CHECK(encode("\xf0", {}).empty());  // the beginning of a character is no reason to read on
}

void test_forbidden() {
  const std::vector<std::string> tokens{"a", "b", "ab"}, merges{"a b"};
  const TokenTable table(views(tokens));
  std::string scratch;
  CHECK(MergeRules::given(table, views(merges), {false, false, false}).find(table, 0, 1, scratch).id == 2);
  CHECK(MergeRules::given(table, views(merges), {false, false, true}).find(table, 0, 1, scratch).id == -1);
  CHECK(MergeRules::implied(table, {}, {false, false, true}).find(table, 0, 1, scratch).id == -1);
}

void test_nonsense() {
  const auto table = [](const std::vector<std::string>& tokens) { return TokenTable(views(tokens)); };
  CHECK_THROWS(FormatError, table({"a", ""}));
  CHECK_THROWS(FormatError, table({"a", "b", "a"}));
  const TokenTable letters = table({"a", "b", "ab"});
  for (const char* line : {"", "a", "a b ab", "a c", "b a", " "}) {
    const std::vector<std::string_view> lines{line};
    CHECK_THROWS(FormatError, MergeRules::given(letters, lines, std::vector<bool>(3)));
  }
  CHECK_THROWS(FormatError, MergeRules::implied(table({std::string(300, 'a')}), {}, std::vector<bool>(1)));
}

void test_finding() {
  const std::vector<std::string> tokens{"<s>", "<s>>", "é", "xy", "x"};
  const TokenTable table(views(tokens));
  const std::vector<int32_t> ids{0, 1, 2, 3, 4};
  const TokenFinder finder(table, ids);
  const auto expect = [&](std::string_view text, size_t from, size_t begin, size_t end, int32_t id) {
    const TokenFinder::Found found = finder.next(text, from);
    CHECK(found.id == id && (id < 0 || (found.begin == begin && found.end == end)));
  };
  expect("a<s>>b", 0, 1, 5, 1);  // the longest
  expect("a<s>b", 0, 1, 4, 0);
  expect("zxxy", 0, 1, 2, 4);
  expect("zxxy", 2, 2, 4, 3);
  expect("<s", 0, 0, 0, -1);
  expect("", 0, 0, 0, -1);
}

}  // namespace

int main() {
  test_merging();
  test_what_is_no_token();
  test_forbidden();
  test_nonsense();
  test_finding();
  return report();
}
