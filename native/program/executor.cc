#include "program/executor.h"

#include <algorithm>
#include <cmath>

namespace pocketlm {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Widest source of the linear ops that quantize their activations.
struct ActivationWidths {
  int64_t quantized = 0, fake = 0;
  int64_t residual = 0;  // of those that are quantized in two steps
};

ActivationWidths activation_widths(const Program& program) {
  ActivationWidths widths;
  for (const Op& op : program.ops()) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (!linear) continue;
    const int64_t width = program.buffers()[size_t(linear->src)].width;
    const int64_t planes = linear->quantize == Quantize::Fine ? 2 : 1;
    if (linear->any_quantized) widths.quantized = std::max(widths.quantized, planes * width);
    if (linear->quantize == Quantize::Fine) widths.residual = std::max(widths.residual, width);
    if (linear->any_float && linear->quantize == Quantize::Row) widths.fake = std::max(widths.fake, width);
  }
  return widths;
}

// Sums that a thread keeps of the linear ops with two rows of activations for each output row.
int64_t fine_sums(const Program& program, const Capacity& capacity) {
  int64_t most = 0;
  for (const Op& op : program.ops()) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (!linear || linear->quantize != Quantize::Fine) continue;
    const bool selected = program.buffers()[size_t(linear->src)].selected;
    const int64_t rows = selected ? capacity.rows : capacity.tokens;
    most = std::max({most, 2 * fine_panels(1) * kPanel, 2 * rows * fine_panels(rows) * kPanel});
  }
  return most;
}

// The most partitions that one query of a group sees. A query that sees everything sees no more than all pages hold.
int64_t most_partitions(int64_t window, int64_t pages) {
  constexpr int64_t each = kPartition / kPage;
  if (window == 0) return ceil_div(pages, each);
  return std::min(ceil_div(window - 1, kPartition), ceil_div(pages - 1, each)) + 1;
}

}  // namespace

Executor::Sizes Executor::sizes(const Capacity& capacity) const {
  require(program.finished(), "the program is not finished");
  require(capacity.tokens > 0 && capacity.sequences > 0 && capacity.rows > 0, "capacities must be positive");
  require(capacity.pages.size() == program.windows().size(), "pages need one number for each group of layers");
  for (const int64_t pages : capacity.pages) require(pages > 0, "capacities must be positive");
  Sizes sizes{};
  sizes.groups.resize(capacity.pages.size());
  int64_t scratch = 0, state = 0, partitions = 0;
  for (const AttentionOp& op : program.layers()) {
    const int64_t group = op.heads / op.kv_heads, floats = attention_state_floats(op.head_dim);
    const int64_t pages = capacity.pages[size_t(op.group)];
    sizes.groups[size_t(op.group)] += checked_bytes(size_t(pages), kv_page_bytes(op, capacity.kv));
    partitions = std::max(partitions, most_partitions(op.window, pages));
    scratch = std::max(scratch, attention_scratch_floats(op.head_dim, group) + kAttentionTile * group * floats);
    state = std::max(state, group * floats);
  }
  for (const BufferShape& shape : program.buffers())
    sizes.buffers.push_back(checked_bytes(size_t(shape.selected ? capacity.rows : capacity.tokens), size_t(shape.width) * sizeof(float)));
  for (const RopeTable& rope : program.ropes())
    sizes.ropes.push_back(checked_bytes(size_t(capacity.tokens), rope.shorter.size() * sizeof(float)));
  const ActivationWidths widths = activation_widths(program);
  const auto rows = size_t(std::max(capacity.tokens, capacity.rows));
  sizes.quantized = checked_bytes(rows, quantized_row_bytes(widths.quantized));
  sizes.fake_quantized = checked_bytes(rows, size_t(widths.fake) * sizeof(float));
  sizes.thread_scratch = checked_bytes(size_t(std::max({scratch, widths.residual, fine_sums(program, capacity)})), sizeof(float));
  // Partial states of attention that is split over partitions: at most 2 * threads single-token tiles.
  sizes.states = checked_bytes(size_t(partitions), size_t(2 * pool_.size() * state) * sizeof(float));
  return sizes;
}

Requirements Executor::requirements(const Capacity& capacity) const {
  const Sizes s = sizes(capacity);
  Requirements bytes{program.weight_bytes(), 0, 0};
  for (const size_t group : s.groups) bytes.kv += group;
  for (const size_t buffer : s.buffers) bytes.workspace += align_up(buffer);
  for (const size_t rope : s.ropes) bytes.workspace += 2 * align_up(rope);
  bytes.workspace += align_up(s.quantized) + align_up(s.fake_quantized) + align_up(s.states);
  bytes.workspace += size_t(pool_.size()) * align_up(s.thread_scratch);
  return bytes;
}

void Executor::allocate(const Capacity& capacity) {
  require(!allocated(), "an executor is allocated once");
  require(!program.planned(), "a program of planned weights has no data to run with");
  const Sizes s = sizes(capacity);
  place_kv(s, capacity);
  for (const size_t buffer : s.buffers) buffers_.emplace_back(buffer);
  for (const size_t rope : s.ropes) {
    rope_cos_.emplace_back(rope);
    rope_sin_.emplace_back(rope);
  }
  quantized_ = Buffer(s.quantized);
  fake_quantized_ = Buffer(s.fake_quantized);
  states_ = Buffer(s.states);
  for (int i = 0; i < pool_.size(); ++i) scratch_.emplace_back(s.thread_scratch);
  capacity_ = capacity;
}

// Page by page, each with all layers of its group side by side: what a sequence writes first is new memory in one place
// and no more than it needs, so large pages, which make walking over a long sequence cheap, do not have to be cleared
// in every layer at once.
void Executor::place_kv(const Sizes& sizes, const Capacity& capacity) {
  std::vector<size_t> next, page_bytes(sizes.groups.size());
  size_t bytes = 0;
  for (const size_t group : sizes.groups) {
    next.push_back(bytes);
    bytes += group;
  }
  for (const AttentionOp& op : program.layers()) page_bytes[size_t(op.group)] += kv_page_bytes(op, capacity.kv);
  for (const AttentionOp& op : program.layers()) {
    layers_.push_back({next[size_t(op.group)], page_bytes[size_t(op.group)]});
    next[size_t(op.group)] += kv_page_bytes(op, capacity.kv);
  }
  kv_ = Buffer::on_large_pages(bytes);
}

void Executor::check(const Batch& batch) const {
  require(allocated(), "step before allocate");
  const auto sequences = int64_t(batch.lengths.size());
  const auto tokens = int64_t(batch.tokens.size());
  require(sequences > 0 && sequences <= capacity_.sequences, "more sequences than were allocated for");
  require(tokens > 0 && tokens <= capacity_.tokens, "more tokens than were allocated for");
  require(int64_t(batch.rows.size()) <= capacity_.rows, "more output rows than were allocated for");
  require(int64_t(batch.starts.size()) == sequences && int64_t(batch.variants.size()) == sequences &&
              batch.block_tables.size() == program.windows().size() * size_t(sequences * batch.table_width),
          "starts, variants and block_tables need one entry per sequence");
  int64_t total = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = batch.lengths[size_t(s)], start = batch.starts[size_t(s)];
    require(length > 0 && start >= 0, "a sequence needs new tokens and a start that is not negative");
    total += length;
    require(ceil_div(start + length, kPage) <= batch.table_width, "a block table is too short for its sequence");
  }
  check_tables(batch);
  require(total == tokens, "lengths do not add up to the number of tokens");
  require(program.has_logits() || batch.rows.empty(), "a stage has no output rows");
  if (program.vocabulary() > 0)
    for (const int32_t token : batch.tokens) require(token >= 0 && token < program.vocabulary(), "a token id is out of range");
  for (const int32_t r : batch.rows) require(r >= 0 && r < tokens, "an output row is out of range");
}

// Every entry that the step can read: from the first page that the sequence's first new token sees to its last page.
void Executor::check_tables(const Batch& batch) const {
  const int32_t* table = batch.block_tables.data();
  for (size_t group = 0; group < capacity_.pages.size(); ++group) {
    const int64_t window = program.windows()[group], pages = capacity_.pages[group];
    for (size_t s = 0; s < batch.lengths.size(); ++s, table += batch.table_width) {
      const int64_t start = batch.starts[s], first = window > 0 ? std::max<int64_t>(0, start - window + 1) / kPage : 0;
      const int64_t last = ceil_div(start + batch.lengths[s], kPage);
      require(last - first <= pages, "a sequence needs more pages than there are");
      for (int64_t i = first; i < last; ++i)
        require(table[i] >= 0 && table[i] < pages, "a block table names a page that does not exist");
    }
  }
}

// How many of a sequence's new tokens attend together: a few of them are cut so that no thread waits for another one.
int64_t Executor::tile_of(int64_t length) const {
  int64_t heads = kAttentionTile;
  for (const AttentionOp& op : program.layers()) heads = std::min(heads, op.kv_heads);
  int64_t tile = kAttentionTile;
  while (tile > kLeastTile && ceil_div(length, tile) * heads < 2 * pool_.size()) tile /= 2;
  return tile;
}

void Executor::plan(const Batch& batch) {
  batch_ = batch;
  sequence_of_.clear();
  position_of_.clear();
  tiles_.clear();
  int64_t token = 0;
  for (size_t s = 0; s < batch.lengths.size(); ++s) {
    const int64_t length = batch.lengths[s], start = batch.starts[s];
    const int64_t tile = tile_of(length);
    for (int64_t i = 0; i < length; i += tile) tiles_.push_back({int64_t(s), token + i, std::min(tile, length - i), start + i});
    for (int64_t i = 0; i < length; ++i) {
      sequence_of_.push_back(int64_t(s));
      position_of_.push_back(start + i);
    }
    token += length;
  }
}

int64_t Executor::rows_of(int buffer) const {
  return program.buffers()[size_t(buffer)].selected ? int64_t(batch_.rows.size()) : int64_t(batch_.tokens.size());
}

float* Executor::row(int buffer, int64_t i) const {
  auto* data = const_cast<float*>(buffers_[size_t(buffer)].as<float>());
  return data + i * program.buffers()[size_t(buffer)].width;
}

int64_t Executor::output_width(bool hidden) const {
  return program.buffers()[size_t(hidden ? program.hidden() : program.logits())].width;
}

std::span<const float> Executor::step(const Batch& batch, bool hidden) {
  const std::unique_lock lock(stepping_, std::try_to_lock);
  require(lock.owns_lock(), "another step of this executor is running");
  check(batch);
  plan(batch);
  kernels_ = &kernels();
  size_t end = hidden && program.has_logits() ? program.hidden_ready() : program.ops().size();
  if (batch.rows.empty()) end = std::min(end, program.select_at());
  pool_.run([&](Worker& worker) {
    rope_angles(worker);
    for (size_t i = 0; i < end; ++i) std::visit([&](const auto& op) { run(op, worker); }, program.ops()[i]);
  });
  if (!program.has_logits()) return {};
  const int output = hidden ? program.hidden() : program.logits();
  return {row(output, 0), batch.rows.size() * size_t(output_width(hidden))};
}

void Executor::each(int64_t count, const std::function<void(int64_t)>& body) {
  const std::unique_lock lock(stepping_, std::try_to_lock);
  require(lock.owns_lock(), "a step of this executor is running");
  pool_.run([&](Worker& worker) {
    worker.each(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  });
}

void Executor::set_rows(int buffer, std::span<const float> values) {
  require(allocated() && !program.has_logits(), "only an allocated stage takes rows");
  require(buffer >= 0 && size_t(buffer) < buffers_.size(), "no such buffer");
  require(values.size_bytes() <= buffers_[size_t(buffer)].size(), "more rows than were allocated for");
  std::copy(values.begin(), values.end(), row(buffer, 0));
}

std::span<const float> Executor::rows(int buffer, int64_t count) const {
  require(allocated() && !program.has_logits(), "only an allocated stage gives rows");
  require(buffer >= 0 && size_t(buffer) < buffers_.size(), "no such buffer");
  require(count >= 0 && count <= capacity_.tokens, "more rows than were allocated for");
  return {row(buffer, 0), size_t(count * program.buffers()[size_t(buffer)].width)};
}

// cos and sin of position * frequency in f32, as transformers computes them.
void Executor::rope_angles(Worker& worker) {
  const auto tokens = int64_t(batch_.tokens.size());
  for (size_t t = 0; t < program.ropes().size(); ++t) {
    const RopeTable& table = program.ropes()[t];
    const auto n = int64_t(table.shorter.size());
    worker.each(tokens, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const bool longer = batch_.variants[size_t(sequence_of_[size_t(i)])] != 0;
        const Vector& frequencies = longer ? table.longer : table.shorter;
        const auto position = float(position_of_[size_t(i)]);
        for (int64_t k = 0; k < n; ++k) {
          const float angle = position * frequencies[size_t(k)];
          rope_cos_[t].as<float>()[i * n + k] = std::cos(angle) * table.attention_factor;
          rope_sin_[t].as<float>()[i * n + k] = std::sin(angle) * table.attention_factor;
        }
      }
    });
  }
}

}  // namespace pocketlm
