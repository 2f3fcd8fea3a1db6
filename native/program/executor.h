// Runs a program over a ragged batch: new tokens of any number of sequences, with a paged KV cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "program/program.h"

namespace pocketlm {

// What an executor allocates for; a step may use less of everything but not more.
struct Capacity {
  int64_t tokens;              // new tokens in a step
  int64_t sequences;           // in a step
  int64_t rows;                // whose logits are asked for in a step
  std::vector<int64_t> pages;  // of the KV cache, for each group of Program::windows
  KvType kv;
};

struct Requirements {
  size_t weights, kv, workspace;  // bytes
};

// One step. Sequence s brings lengths[s] new tokens after starts[s] computed ones. Layers that keep as many positions
// (a group of Program::windows) share tables: block_tables[(group * sequences + s) * table_width + i] is the page of
// positions [32 i, 32 i + 32). Entries of pages that lie before the window of the first new token are not read.
struct Batch {
  std::span<const int32_t> tokens, lengths, starts, block_tables, variants, rows;
  int64_t table_width;
};

// Panels that one call multiplies with both halves of `rows` Quantize::Fine activations: few rows are bound by reading
// the weights, which wants long runs; the sums of many, which are kept apart, have to stay in the cache.
constexpr int64_t fine_panels(int64_t rows) { return std::max<int64_t>(8, 64 / rows); }

// New tokens of one sequence that are never spread over several tiles of attention.
inline constexpr int64_t kLeastTile = 4;

// One step at a time: a second one, from another thread, is refused.
class Executor {
 public:
  explicit Executor(int threads) : pool_(threads) {}

  Program program;

  Requirements requirements(const Capacity& capacity) const;
  void allocate(const Capacity& capacity);
  // Puts memory behind the whole KV cache; other threads may step meanwhile.
  void populate_cache() { kv_.populate(); }
  bool allocated() const { return capacity_.tokens > 0; }

  // Returns the logits [rows, vocabulary], or with `hidden` the final hidden states [rows, width]; valid until the next
  // step. Throws std::invalid_argument for a batch that does not fit what was allocated.
  std::span<const float> step(const Batch& batch, bool hidden);
  int64_t output_width(bool hidden) const;

  // Calls body(i) for every i in [0, count) on the threads of the step; they are still awake after one.
  void each(int64_t count, const std::function<void(int64_t)>& body);

  // The rows of a buffer of a stage, one per new token: set before a step, read after it.
  void set_rows(int buffer, std::span<const float> values);
  std::span<const float> rows(int buffer, int64_t count) const;

 private:
  // Up to kAttentionTile consecutive new tokens of one sequence.
  struct Tile {
    int64_t sequence, token, tokens, position;
  };

  // Where a layer has its part of page 0 in the KV cache, and bytes from page to page.
  struct LayerPlace {
    size_t offset, stride;
  };

  // Bytes of everything that allocate takes, so that what is promised and what is taken cannot differ.
  struct Sizes {
    std::vector<size_t> groups;   // KV cache of each group of layers
    std::vector<size_t> buffers;  // per program buffer
    std::vector<size_t> ropes;    // cos, and as much for sin, per table
    size_t quantized, fake_quantized, thread_scratch, states;
  };

  void check(const Batch& batch) const;
  void check_tables(const Batch& batch) const;
  int64_t tile_of(int64_t length) const;
  void plan(const Batch& batch);
  int64_t rows_of(int buffer) const;
  float* row(int buffer, int64_t i) const;
  Sizes sizes(const Capacity& capacity) const;
  void place_kv(const Sizes& sizes, const Capacity& capacity);

  void rope_angles(Worker& worker);
  void run(const EmbedOp& op, Worker& worker);
  void run(const RmsNormOp& op, Worker& worker);
  void run(const LinearOp& op, Worker& worker);
  void run(const RopeOp& op, Worker& worker);
  void run(const AttentionOp& op, Worker& worker);
  void run(const GatedOp& op, Worker& worker);
  void run(const AddOp& op, Worker& worker);
  void run(const SelectOp& op, Worker& worker);
  void run(const SoftcapOp& op, Worker& worker);

  void quantize_rows(const LinearOp& op, int64_t begin, int64_t end, Worker& worker);
  void matmul(const LinearOp& op, int64_t rows, Worker& worker);
  void matmul_part(const LinearOp& op, const LinearPart& part, int64_t panel_begin, int64_t panel_end, int64_t rows, Worker& worker);
  void matmul_fine(const LinearOp& op, const LinearPart& part, int64_t panel_begin, int64_t panel_end, int64_t rows, Worker& worker);
  void store_kv(const AttentionOp& op, Worker& worker);
  const int32_t* block_table(const AttentionOp& op, int64_t sequence) const;
  AttentionTile attention_tile(const AttentionOp& op, const Tile& tile, int64_t kv_head) const;
  void attend_whole(const AttentionOp& op, Worker& worker);
  void attend_split(const AttentionOp& op, Worker& worker);

  ThreadPool pool_;
  std::mutex stepping_;
  Capacity capacity_{};
  std::vector<Buffer> buffers_;          // per program buffer: [rows, width] f32
  std::vector<Buffer> rope_cos_, rope_sin_;  // per table: [tokens, frequencies] f32
  Buffer quantized_, fake_quantized_;    // activations of the linear op that runs
  Buffer kv_;
  std::vector<LayerPlace> layers_;       // in kv_
  std::vector<Buffer> scratch_;          // per thread, for attention
  Buffer states_;                        // of attention split over partitions

  // The step that runs.
  Batch batch_{};
  std::vector<int64_t> sequence_of_, position_of_;  // per token
  std::vector<Tile> tiles_;
  const Kernels* kernels_ = nullptr;
};

}  // namespace pocketlm
