// Python's view of native/sampling: arguments are checked here and there, then the GIL is let go.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "bind/bind.h"
#include "program/executor.h"
#include "sampling/draw.h"
#include "sampling/sampler.h"

using namespace nanobind::literals;

namespace pocketlm {
namespace {

using Doubles = nb::ndarray<nb::numpy, double, nb::ndim<1>>;

nb::tuple best_of(const Choice& choice) {
  nb::list best;
  for (const auto& [id, logprob] : choice.best) best.append(nb::make_tuple(id, logprob));
  return nb::tuple(best);
}

// (id, logprob, ((id, logprob), ...))
nb::tuple sample(const Sampler& sampler, const Array<float>& logits, uint64_t index) {
  Choice choice;
  {
    nb::gil_scoped_release release;
    choice = sampler.sample(span_of(logits), index);
  }
  return nb::make_tuple(choice.id, choice.logprob, best_of(choice));
}

using Masks = std::optional<Array2<uint32_t>>;
using Asked = std::tuple<Sampler*, uint64_t, size_t, std::vector<int32_t>, Masks>;

Each on_threads(Executor* executor, size_t items) {
  if (executor == nullptr || items < 2)
    return [](int64_t count, const std::function<void(int64_t)>& body) {
      for (int64_t i = 0; i < count; ++i) body(i);
    };
  return [executor](int64_t count, const std::function<void(int64_t)>& body) { executor->each(count, body); };
}

nb::list as_list(const std::vector<Choice>& choices) {
  nb::list list;
  for (const Choice& choice : choices) list.append(nb::make_tuple(choice.id, choice.logprob, best_of(choice)));
  return list;
}

// For each of `asked` its tokens as (id, logprob, ((id, logprob), ...)), what went wrong or None, whose fault it is.
nb::list draw_rows(const Array2<float>& logits, const std::vector<Asked>& asked, Executor* executor) {
  std::vector<Draw> draws;
  draws.reserve(asked.size());
  for (const auto& [sampler, index, row, guesses, masks] : asked)
    draws.push_back({sampler, index, row, guesses, masks ? std::span(masks->data(), masks->size()) : std::span<const uint32_t>{}});
  {
    nb::gil_scoped_release release;
    draw_all({logits.data(), logits.size()}, logits.shape(1), draws, on_threads(executor, draws.size()));
  }
  nb::list result;
  for (const Draw& draw : draws) {
    const nb::object error = draw.error.empty() ? nb::object(nb::none()) : nb::object(nb::str(draw.error.c_str()));
    result.append(nb::make_tuple(as_list(draw.choices), error, draw.banned));
  }
  return result;
}

nb::list score_rows(const Array2<float>& logits, const Array<int32_t>& targets, int32_t best, Executor* executor) {
  std::vector<Choice> scores;
  {
    nb::gil_scoped_release release;
    scores = score_all({logits.data(), logits.size()}, logits.shape(1), span_of(targets), best, on_threads(executor, targets.size()));
  }
  return as_list(scores);
}

Doubles row_logprobs(const Array2<float>& logits, const Array<int32_t>& targets) {
  auto* result = new std::vector<double>(targets.size());
  nb::capsule owner(result, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  {
    nb::gil_scoped_release release;
    target_logprobs({logits.data(), logits.size()}, logits.shape(1), span_of(targets), *result);
  }
  return {result->data(), {result->size()}, owner};
}

// (kl, reference log-probability, candidate log-probability, same top token), each (rows,)
nb::tuple divergences(const Array2<float>& reference, const Array2<float>& candidate,
                      const Array<int32_t>& targets) {
  if (candidate.shape(0) != reference.shape(0) || candidate.shape(1) != reference.shape(1))
    throw std::invalid_argument("reference and candidate differ in shape");
  std::vector<RowDivergence> rows(targets.size());
  {
    nb::gil_scoped_release release;
    divergence_rows({reference.data(), reference.size()}, {candidate.data(), candidate.size()},
                    reference.shape(1), span_of(targets), rows);
  }
  auto column = [&](auto value) {
    auto* values = new std::vector<double>();
    nb::capsule owner(values, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
    for (const RowDivergence& row : rows) values->push_back(value(row));
    return Doubles(values->data(), {values->size()}, owner);
  };
  return nb::make_tuple(column([](const RowDivergence& row) { return row.kl; }),
                        column([](const RowDivergence& row) { return row.reference_logprob; }),
                        column([](const RowDivergence& row) { return row.candidate_logprob; }),
                        column([](const RowDivergence& row) { return row.same_top ? 1.0 : 0.0; }));
}

}  // namespace

void bind_sampling(nb::module_& m) {
  nb::class_<Sampler>(m, "Sampler", "The next token of one sequence; see native/sampling/sampler.h for the order.")
      .def(
          "__init__",
          [](Sampler* self, size_t vocab, float temperature, int32_t top_k, float top_p, float min_p,
             float typical_p, float repetition_penalty, float frequency_penalty,
             float presence_penalty, int32_t penalty_window,
             std::vector<std::pair<int32_t, float>> logit_bias, uint64_t seed, int32_t logprobs,
             uint64_t min_tokens, std::vector<int32_t> ends) {
            new (self) Sampler({.temperature = temperature,
                                .top_k = top_k,
                                .top_p = top_p,
                                .min_p = min_p,
                                .typical_p = typical_p,
                                .repetition_penalty = repetition_penalty,
                                .frequency_penalty = frequency_penalty,
                                .presence_penalty = presence_penalty,
                                .penalty_window = penalty_window,
                                .logit_bias = std::move(logit_bias),
                                .seed = seed,
                                .logprobs = logprobs,
                                .min_tokens = min_tokens,
                                .ends = std::move(ends)},
                               vocab);
          },
          "vocab"_a, nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0f,
          "min_p"_a = 0.0f, "typical_p"_a = 1.0f, "repetition_penalty"_a = 1.0f,
          "frequency_penalty"_a = 0.0f, "presence_penalty"_a = 0.0f, "penalty_window"_a = 0,
          "logit_bias"_a = std::vector<std::pair<int32_t, float>>{}, "seed"_a = 0,
          "logprobs"_a = -1, "min_tokens"_a = 0, "ends"_a = std::vector<int32_t>{})
      .def(
          "observe",
          [](Sampler& self, const Array<int32_t>& ids, bool output) { self.observe(span_of(ids), output); },
          "ids"_a.noconvert(), "output"_a)
      .def(
          "observe_output",
          [](Sampler& self, int32_t id) { self.observe({&id, 1}, true); }, "id"_a)
      .def("sample", &sample, "logits"_a.noconvert(), "index"_a);
  m.def("draw_rows", &draw_rows, "logits"_a.noconvert(), "asked"_a, "executor"_a.none() = nb::none());
  m.def("score_rows", &score_rows, "logits"_a.noconvert(), "targets"_a.noconvert(), "best"_a, "executor"_a.none() = nb::none());
  m.def("target_logprobs", &row_logprobs, "logits"_a.noconvert(), "targets"_a.noconvert());
  m.def("divergence_rows", &divergences, "reference"_a.noconvert(), "candidate"_a.noconvert(),
        "targets"_a.noconvert());
}

}  // namespace pocketlm
