// Bpe and TokenFinder: vocabularies and their texts cross once, when they are made.
#include "bind/bind.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/bpe.h"
#include "text/token_finder.h"

namespace pocketlm {
namespace {

// A str as UTF-8, which it keeps for as long as it lives. Lone surrogates raise Python's UnicodeEncodeError.
std::string_view utf8_of(nb::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) nb::raise_python_error();
  return {data, size_t(size)};
}

std::vector<std::string_view> views_of(const nb::list& texts) {
  std::vector<std::string_view> views;
  views.reserve(texts.size());
  for (const nb::handle text : texts) views.push_back(utf8_of(text));
  return views;
}

nb::object text_of(std::string_view utf8) {
  nb::object text = nb::steal(PyUnicode_DecodeUTF8(utf8.data(), Py_ssize_t(utf8.size()), nullptr));
  if (!text.is_valid()) nb::raise_python_error();
  return text;
}

TokenTable make_tokens(const nb::list& texts) {
  const std::vector<std::string_view> views = views_of(texts);
  nb::gil_scoped_release release;
  return TokenTable(views);
}

MergeRules make_rules(const TokenTable& tokens, const Array<int32_t>& control, const std::optional<nb::list>& merges,
                      const std::optional<Array<uint32_t>>& order) {
  std::vector<bool> forbidden(size_t(tokens.size()));
  for (const int32_t id : span_of(control)) {
    require(id >= 0 && id < tokens.size(), "a control id is not in the vocabulary");
    forbidden[size_t(id)] = true;
  }
  if (merges) {
    const std::vector<std::string_view> lines = views_of(*merges);
    nb::gil_scoped_release release;
    return MergeRules::given(tokens, lines, std::move(forbidden));
  }
  std::vector<uint32_t> ranks;
  if (order) ranks.assign(order->data(), order->data() + order->size());
  require(ranks.empty() || int32_t(ranks.size()) == tokens.size(), "order should have one number a token");
  return MergeRules::implied(tokens, std::move(ranks), std::move(forbidden));
}

nb::object token_text(const Bpe& bpe, int64_t id) {
  if (id < 0 || id >= bpe.tokens().size()) throw nb::index_error("no such token");
  return text_of(bpe.tokens().text(int32_t(id)));
}

std::vector<int32_t> encode(const Bpe& bpe, const nb::list& words) {
  const std::vector<std::string_view> views = views_of(words);
  nb::gil_scoped_release release;
  std::vector<int32_t> ids;
  for (const std::string_view word : views) bpe.encode(word, ids);
  return ids;
}

nb::list list_of(const std::vector<int32_t>& ids) {
  nb::list out;
  for (const int32_t id : ids) out.append(id);
  return out;
}

// A finder with the texts it looks for.
struct Finder {
  TokenTable texts;
  TokenFinder finder;

  explicit Finder(TokenTable&& table) : texts(std::move(table)), finder(texts, all_of(texts)) {}
  Finder(const Finder&) = delete;

  static std::vector<int32_t> all_of(const TokenTable& table) {
    std::vector<int32_t> ids(size_t(table.size()));
    for (int32_t id = 0; id < table.size(); ++id) ids[size_t(id)] = id;
    return ids;
  }
};

nb::list find_all(const Finder& finder, const nb::str& text) {
  const std::string_view utf8 = utf8_of(text);
  nb::list out;
  size_t at = 0;
  int64_t chars = 0;
  for (;;) {
    const TokenFinder::Found found = finder.finder.next(utf8, at);
    if (found.id < 0) return out;
    const int64_t begin = chars + count_chars(utf8.substr(at, found.begin - at));
    chars = begin + count_chars(utf8.substr(found.begin, found.end - found.begin));
    out.append(nb::make_tuple(begin, chars, found.id));
    at = found.end;
  }
}

}  // namespace

void bind_text(nb::module_& m) {
  nb::class_<Bpe>(m, "Bpe", "A vocabulary with its merges: words to ids.")
      .def("__init__",
           [](Bpe* self, const nb::list& tokens, const Array<int32_t>& control, const std::optional<nb::list>& merges,
              const std::optional<Array<uint32_t>>& order, bool ignore_merges, bool byte_fallback, int32_t unknown) {
             TokenTable table = make_tokens(tokens);
             require(unknown < table.size(), "the unknown id is not in the vocabulary");
             MergeRules rules = make_rules(table, control, merges, order);
             new (self) Bpe(std::move(table), std::move(rules), {ignore_merges, byte_fallback, unknown});
           },
           nb::arg("tokens"), nb::arg("control"), nb::arg("merges").none(), nb::arg("order").none(), nb::arg("ignore_merges"),
           nb::arg("byte_fallback"), nb::arg("unknown"))
      .def("__len__", [](const Bpe& bpe) { return bpe.tokens().size(); })
      .def("__getitem__", [](const Bpe& bpe, int64_t id) { return token_text(bpe, id); }, nb::arg("id"))
      .def("find", [](const Bpe& bpe, const nb::str& text) { return bpe.tokens().find(utf8_of(text)); }, nb::arg("text"))
      .def("encode", [](const Bpe& bpe, const nb::list& words) { return list_of(encode(bpe, words)); }, nb::arg("words"))
      .def_prop_ro("nbytes", &Bpe::bytes);
  nb::class_<Finder>(m, "TokenFinder", "Finds texts in a text: leftmost, then longest.")
      .def("__init__", [](Finder* self, const nb::list& texts) { new (self) Finder(make_tokens(texts)); }, nb::arg("texts"))
      .def("find", &find_all, nb::arg("text"));
}

}  // namespace pocketlm
