// The attention op: new keys and values into their pages, then every tile of queries over the pages it sees.
//
// A query's softmax is computed partition by partition (256 positions, counted from position 0) and merged in order.
// With few queries the partitions are spread over the threads and merged afterwards, in the same order: same bits.
#include <algorithm>
#include <limits>

#include "program/executor.h"

namespace pocketlm {
namespace {

void clear_states(float* states, int64_t count, int64_t head_dim) {
  const int64_t floats = attention_state_floats(head_dim);
  std::fill_n(states, count * floats, 0.0f);
  for (int64_t i = 0; i < count; ++i) states[i * floats] = -std::numeric_limits<float>::infinity();
}

// Partitions that any query of the tile sees.
struct Partitions {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

Partitions partitions_of(const AttentionTile& tile) {
  const int64_t first_seen = tile.window > 0 ? std::max<int64_t>(0, tile.first_position - tile.window + 1) : 0;
  return {first_seen / kPartition, (tile.first_position + tile.tokens - 1) / kPartition + 1};
}

}  // namespace

void Executor::run(const AttentionOp& op, Worker& worker) {
  store_kv(op, worker);
  const auto tokens = int64_t(batch_.tokens.size());
  const bool single = tokens == int64_t(tiles_.size());  // every sequence brings one token
  if (single && tokens * op.kv_heads <= 2 * pool_.size() && pool_.size() > 1) attend_split(op, worker);
  else attend_whole(op, worker);
}

const int32_t* Executor::block_table(const AttentionOp& op, int64_t sequence) const {
  const auto sequences = int64_t(batch_.lengths.size());
  return batch_.block_tables.data() + (op.group * sequences + sequence) * batch_.table_width;
}

void Executor::store_kv(const AttentionOp& op, Worker& worker) {
  const LayerPlace layer = layers_[size_t(op.layer)];
  const size_t head = kv_head_bytes(op.head_dim, capacity_.kv);
  worker.each(int64_t(batch_.tokens.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t position = position_of_[size_t(i)];
      const int32_t number = block_table(op, sequence_of_[size_t(i)])[position / kPage];
      std::byte* page = kv_.data() + layer.offset + size_t(number) * layer.stride;
      const float* k = row(op.qkv, i) + op.heads * op.head_dim;
      const float* v = k + op.kv_heads * op.head_dim;
      for (int64_t h = 0; h < op.kv_heads; ++h)
        kernels_->store_kv(k + h * op.head_dim, v + h * op.head_dim, op.head_dim, position % kPage, page + size_t(h) * head,
                           capacity_.kv, scratch_[size_t(worker.index())].as<float>());
    }
  });
}

AttentionTile Executor::attention_tile(const AttentionOp& op, const Tile& tile, int64_t kv_head) const {
  const int64_t group = op.heads / op.kv_heads;
  const size_t head = kv_head_bytes(op.head_dim, capacity_.kv);
  const LayerPlace layer = layers_[size_t(op.layer)];
  return {
      .q = row(op.qkv, tile.token) + kv_head * group * op.head_dim,
      .q_stride = program.buffers()[size_t(op.qkv)].width,
      .tokens = tile.tokens,
      .group = group,
      .head_dim = op.head_dim,
      .first_position = tile.position,
      .window = op.window,
      .scale = op.scale,
      .kv = kv_.data() + layer.offset + size_t(kv_head) * head,
      .page_stride = layer.stride,
      .pages = block_table(op, tile.sequence),
      .type = capacity_.kv,
  };
}

// One item of work: all partitions of one tile and one KV head.
void Executor::attend_whole(const AttentionOp& op, Worker& worker) {
  const int64_t group = op.heads / op.kv_heads, state = attention_state_floats(op.head_dim);
  worker.each(int64_t(tiles_.size()) * op.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Tile& tile = tiles_[size_t(i / op.kv_heads)];
      const int64_t kv_head = i % op.kv_heads;
      const AttentionTile queries = attention_tile(op, tile, kv_head);
      const Partitions partitions = partitions_of(queries);
      auto* states = scratch_[size_t(worker.index())].as<float>();
      clear_states(states, tile.tokens * group, op.head_dim);
      kernels_->attend(queries, partitions.begin, partitions.end, states, states + kAttentionTile * group * state);
      for (int64_t q = 0; q < tile.tokens * group; ++q)
        kernels_->finish(states + q * state, op.head_dim,
                         row(op.dst, tile.token + q / group) + (kv_head * group + q % group) * op.head_dim);
    }
  });
}

// One item of work: one partition of one single-token tile and one KV head; then one merge per tile and KV head. Each
// pair of tile and head has states for as many partitions as the query that sees most of them.
void Executor::attend_split(const AttentionOp& op, Worker& worker) {
  const int64_t group = op.heads / op.kv_heads, state = attention_state_floats(op.head_dim);
  const auto heads = int64_t(tiles_.size()) * op.kv_heads;
  int64_t most = 1;
  for (const Tile& tile : tiles_) most = std::max(most, partitions_of(attention_tile(op, tile, 0)).count());
  auto* states = states_.as<float>();
  worker.each(heads * most, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / most;
      const AttentionTile queries = attention_tile(op, tiles_[size_t(head / op.kv_heads)], head % op.kv_heads);
      const Partitions partitions = partitions_of(queries);
      const int64_t partition = partitions.begin + i % most;
      if (partition >= partitions.end) continue;
      clear_states(states + i * group * state, group, op.head_dim);
      kernels_->attend(queries, partition, partition + 1, states + i * group * state,
                       scratch_[size_t(worker.index())].as<float>());
    }
  });
  worker.each(heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      const Tile& tile = tiles_[size_t(head / op.kv_heads)];
      const int64_t count = partitions_of(attention_tile(op, tile, head % op.kv_heads)).count();
      for (int64_t g = 0; g < group; ++g) {
        float* merged = states + head * most * group * state + g * state;
        for (int64_t p = 1; p < count; ++p) kernels_->merge(merged, merged + p * group * state, op.head_dim);
        kernels_->finish(merged, op.head_dim, row(op.dst, tile.token) + (head % op.kv_heads * group + g) * op.head_dim);
      }
    }
  });
}

}  // namespace pocketlm
