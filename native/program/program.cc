#include "program/program.h"

#include <algorithm>

namespace pocketlm {
namespace {

void require_heads(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "heads must be a positive multiple of kv_heads");
  require(head_dim > 0 && head_dim % 2 == 0, "head_dim must be positive and even");
}

}  // namespace

int Program::buffer(int64_t width) {
  require_open();
  require(width > 0, "a buffer's width must be positive");
  buffers_.push_back({width, false});
  written_.push_back(false);
  last_write_.push_back(0);
  return int(buffers_.size()) - 1;
}

int Program::rope_table(Vector inv_freq, Vector inv_freq_long, float attention_factor) {
  require_open();
  require(!inv_freq.empty(), "a rope table needs frequencies");
  require(inv_freq_long.empty() || inv_freq_long.size() == inv_freq.size(), "both rope frequency vectors need one length");
  if (inv_freq_long.empty()) inv_freq_long = inv_freq;
  ropes_.push_back({std::move(inv_freq), std::move(inv_freq_long), attention_factor});
  return int(ropes_.size()) - 1;
}

void Program::require_open() const { require(!finished(), "the program is finished"); }

int64_t Program::width(int buffer) const {
  require(buffer >= 0 && size_t(buffer) < buffers_.size(), "no such buffer");
  return buffers_[size_t(buffer)].width;
}

int64_t Program::read(int buffer) const {
  const int64_t w = width(buffer);
  require(written_[size_t(buffer)], "a buffer is read before it is written");
  require(buffers_[size_t(buffer)].selected == selected_, "a buffer is read across select");
  return w;
}

int64_t Program::write(int buffer) {
  require_open();
  const int64_t w = width(buffer);
  const auto i = size_t(buffer);
  require(!written_[i] || buffers_[i].selected == selected_, "a buffer is written across select");
  written_[i] = true;
  buffers_[i].selected = selected_;
  last_write_[i] = ops_.size();
  return w;
}

void Program::input(int buffer) {
  require(!selected_, "an input comes before select");
  width(buffer);
  require(!written_[size_t(buffer)], "an input is a buffer that nothing wrote before");
  write(buffer);
}

void Program::embed(int dst, Weight weight, float scale) {
  require(!selected_, "embed comes before select");
  require(write(dst) == weight->cols, "embed: width differs from the weight's");
  require(vocabulary_ == 0, "a program has one embed");
  vocabulary_ = weight->rows;
  push(EmbedOp{dst, std::move(weight), scale});
}

void Program::rms_norm(int dst, int src, Vector weight, float eps) {
  const int64_t n = read(src);
  require(write(dst) == n && int64_t(weight.size()) == n, "rms_norm: widths differ");
  push(RmsNormOp{dst, src, std::move(weight), eps});
}

void Program::linear(int src, std::vector<LinearPart> parts, bool accumulate, Quantize quantize) {
  const int64_t cols = read(src);
  require(!parts.empty(), "linear: no parts");
  LinearOp op{src, std::move(parts), accumulate, quantize, false, false};
  for (const LinearPart& part : op.parts) {
    require(part.weight != nullptr && part.weight->cols == cols, "linear: the weight's columns differ from the source's width");
    require(part.dst != src, "linear: source and destination are the same buffer");
    if (accumulate) read(part.dst);
    const int64_t w = write(part.dst);
    require(part.dst_offset >= 0 && part.dst_offset + part.weight->rows <= w, "linear: rows do not fit the destination");
    require(part.bias.empty() || int64_t(part.bias.size()) == part.weight->rows, "linear: the bias has another length");
    (is_float(part.weight->layout) ? op.any_float : op.any_quantized) = true;
  }
  push(std::move(op));
}

void Program::rope(RopeOp op) {
  require_heads(op.heads, op.kv_heads, op.head_dim);
  require(!selected_ && read(op.qkv) >= (op.heads + 2 * op.kv_heads) * op.head_dim, "rope: qkv is too narrow");
  require(op.table >= 0 && size_t(op.table) < ropes_.size(), "rope: no such table");
  require(op.rotary_dim >= 0 && op.rotary_dim <= op.head_dim && op.rotary_dim % 2 == 0, "rope: bad rotary_dim");
  require(op.rotary_dim == 0 || ropes_[size_t(op.table)].shorter.size() == size_t(op.rotary_dim / 2),
          "rope: the table has another number of frequencies");
  for (const Vector* norm : {&op.q_norm, &op.k_norm})
    require(norm->empty() || int64_t(norm->size()) == op.head_dim, "rope: a head norm has another length");
  write(op.qkv);
  push(std::move(op));
}

void Program::attention(AttentionOp op) {
  require_heads(op.heads, op.kv_heads, op.head_dim);
  require(!selected_ && read(op.qkv) == (op.heads + 2 * op.kv_heads) * op.head_dim, "attention: qkv has another width");
  require(op.dst != op.qkv && write(op.dst) == op.heads * op.head_dim, "attention: the destination has another width");
  require(op.window >= 0, "attention: a window is not negative");
  op.layer = int(layers_.size());
  op.group = int(std::ranges::find(windows_, op.window) - windows_.begin());
  if (size_t(op.group) == windows_.size()) windows_.push_back(op.window);
  layers_.push_back(op);
  push(op);
}

void Program::gated(int dst, int src, Activation kind) {
  const int64_t n = read(src);
  require(dst != src && write(dst) * 2 == n, "gated: the source must be twice as wide as the destination");
  push(GatedOp{dst, src, kind});
}

void Program::add(int dst, int src) {
  require(read(src) == read(dst) && dst != src, "add: widths differ");
  write(dst);
  push(AddOp{dst, src});
}

void Program::select(int dst, int src) {
  require(!selected_, "a program has one select");
  const int64_t n = read(src);
  selected_ = true;
  require(!written_[size_t(dst)] && write(dst) == n, "select: the destination must be new and as wide as the source");
  select_at_ = ops_.size();
  push(SelectOp{dst, src});
}

void Program::softcap(int buffer, float cap) {
  require(cap > 0, "softcap: the cap must be positive");
  read(buffer);
  write(buffer);
  push(SoftcapOp{buffer, cap});
}

void Program::finish(int hidden, int logits) {
  require_open();
  require(selected_ && vocabulary_ > 0, "a program needs embed and select");
  read(hidden);
  require(read(logits) == vocabulary_, "the logits' width differs from the vocabulary's");
  hidden_ready_ = last_write_[size_t(hidden)] + 1;
  hidden_ = hidden;
  logits_ = logits;
  finished_ = true;
}

void Program::finish_stage() {
  require_open();
  require(!selected_ && !ops_.empty(), "a stage has ops and no select");
  select_at_ = ops_.size();
  finished_ = true;
}

std::set<const PackedMatrix*> Program::weights() const {
  std::set<const PackedMatrix*> found;  // a tied embedding counts once
  for (const Op& op : ops_) {
    if (auto* embed = std::get_if<EmbedOp>(&op)) found.insert(embed->weight.get());
    if (auto* linear = std::get_if<LinearOp>(&op))
      for (const LinearPart& part : linear->parts) found.insert(part.weight.get());
  }
  return found;
}

size_t Program::weight_bytes() const {
  size_t bytes = 0;
  for (const PackedMatrix* weight : weights()) bytes += weight->bytes();
  return bytes;
}

bool Program::planned() const {
  for (const PackedMatrix* weight : weights())
    if (weight->planned()) return true;
  return false;
}

}  // namespace pocketlm
