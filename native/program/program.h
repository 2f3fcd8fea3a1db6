// A model's forward pass as data: a flat list of ops over float buffers [rows, width].
//
// A whole model embeds tokens and ends in logits; a stage of one takes buffers as inputs and ends in buffers.
//
// Built once from Python, one call per op, each of which checks that widths and weights agree; after that a step
// needs no more checks of shape. Before `select` a buffer has a row for every new token of the step, after it a row
// for every token whose logits were asked for.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "kernels/kernels.h"
#include "program/weight.h"

namespace pocketlm {

using Vector = std::vector<float>;

struct EmbedOp {
  int dst;
  Weight weight;
  float scale;
};

struct RmsNormOp {
  int dst, src;
  Vector weight;
  float eps;
};

struct LinearPart {
  Weight weight;
  int dst;
  int64_t dst_offset;  // columns
  Vector bias;         // empty: none
};

// How a linear op quantizes its activations: 8 bits with a scale for each 32 (Block) or for each row (Row, BitNet), or
// 8 bits and the 8 bits below them (Fine): twice the arithmetic for 1/250 of the error, read weights once.
enum class Quantize : uint8_t { Block, Fine, Row };

struct LinearOp {
  int src;
  std::vector<LinearPart> parts;  // all read the same rows of src
  bool accumulate;
  Quantize quantize;
  bool any_float, any_quantized;  // which forms of the activations the parts read
};

struct RopeOp {
  int qkv, table;
  int64_t heads, kv_heads, head_dim, rotary_dim;
  Vector q_norm, k_norm;  // empty: none
  float eps;
};

struct AttentionOp {
  int dst, qkv, layer;
  int64_t heads, kv_heads, head_dim, window;
  float scale;
  int group = 0;  // of the layers that keep as many positions: index into Program::windows
};

// Bytes of one page.
inline size_t kv_page_bytes(const AttentionOp& op, KvType type) {
  return size_t(op.kv_heads) * kv_head_bytes(op.head_dim, type);
}

struct GatedOp {
  int dst, src;
  Activation kind;
};

struct AddOp {
  int dst, src;
};

struct SelectOp {
  int dst, src;
};

struct SoftcapOp {
  int buffer;
  float cap;
};

using Op = std::variant<EmbedOp, RmsNormOp, LinearOp, RopeOp, AttentionOp, GatedOp, AddOp, SelectOp, SoftcapOp>;

// Rotation frequencies of one kind of layer; `longer` replaces `shorter` in sequences of variant 1.
struct RopeTable {
  Vector shorter, longer;
  float attention_factor;
};

struct BufferShape {
  int64_t width;
  bool selected;  // one row per output row, not per token
};

class Program {
 public:
  int buffer(int64_t width);
  int rope_table(Vector inv_freq, Vector inv_freq_long, float attention_factor);

  void input(int buffer);  // filled from outside before each step
  void embed(int dst, Weight weight, float scale);
  void rms_norm(int dst, int src, Vector weight, float eps);
  void linear(int src, std::vector<LinearPart> parts, bool accumulate, Quantize quantize);
  void rope(RopeOp op);
  void attention(AttentionOp op);  // op.layer and op.group are set here, in order of the calls
  void gated(int dst, int src, Activation kind);
  void add(int dst, int src);
  void select(int dst, int src);
  void softcap(int buffer, float cap);
  void finish(int hidden, int logits);
  void finish_stage();  // no select and no logits: results are read from the buffers

  const std::vector<Op>& ops() const { return ops_; }
  const std::vector<BufferShape>& buffers() const { return buffers_; }
  const std::vector<RopeTable>& ropes() const { return ropes_; }
  const std::vector<AttentionOp>& layers() const { return layers_; }
  // What each group of layers sees, 0 for all positions: the groups have pages and block tables of their own.
  const std::vector<int64_t>& windows() const { return windows_; }
  int hidden() const { return hidden_; }
  int logits() const { return logits_; }
  size_t select_at() const { return select_at_; }      // index of the select op, or where a stage ends
  size_t hidden_ready() const { return hidden_ready_; }  // ops before this index compute `hidden`
  bool finished() const { return finished_; }
  bool has_logits() const { return logits_ >= 0; }
  int64_t vocabulary() const { return vocabulary_; }
  size_t weight_bytes() const;
  bool planned() const;  // whether a weight is a shape without data: then the program cannot run

 private:
  std::set<const PackedMatrix*> weights() const;
  int64_t width(int buffer) const;
  int64_t read(int buffer) const;   // width of a source, checked to be on the current side of select
  int64_t write(int buffer);        // width of a destination, marked as such
  void require_open() const;
  void push(Op op) { ops_.push_back(std::move(op)); }

  std::vector<Op> ops_;
  std::vector<BufferShape> buffers_;
  std::vector<bool> written_;
  std::vector<size_t> last_write_;
  std::vector<RopeTable> ropes_;
  std::vector<AttentionOp> layers_;
  std::vector<int64_t> windows_;
  bool selected_ = false, finished_ = false;
  size_t select_at_ = 0, hidden_ready_ = 0;
  int hidden_ = -1, logits_ = -1;
  int64_t vocabulary_ = 0;
};

}  // namespace pocketlm
