// The ops of a program but attention: each shares its rows or panels between the threads.
#include <algorithm>
#include <cstring>

#include "pack/pack.h"
#include "program/executor.h"

namespace pocketlm {

namespace {
constexpr int64_t kRowGrain = 4;  // rows handed out at once by the row-wise ops
}

void Executor::run(const EmbedOp& op, Worker& worker) {
  worker.each(rows_of(op.dst), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      unpack_row(*op.weight, batch_.tokens[size_t(i)], row(op.dst, i));
      if (op.scale != 1.0f) kernels_->scale(row(op.dst, i), op.scale, op.weight->cols);
    }
  });
}

void Executor::run(const RmsNormOp& op, Worker& worker) {
  const auto n = int64_t(op.weight.size());
  worker.each(rows_of(op.src), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels_->rms_norm(row(op.src, i), op.weight.data(), op.eps, n, row(op.dst, i));
  });
}

void Executor::run(const LinearOp& op, Worker& worker) {
  const int64_t rows = rows_of(op.src), width = program.buffers()[size_t(op.src)].width;
  if (op.any_quantized)
    worker.each(rows, kRowGrain, [&](int64_t begin, int64_t end) { quantize_rows(op, begin, end, worker); });
  if (op.any_float && op.quantize == Quantize::Row) {
    worker.each(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        kernels_->fake_quantize_row(row(op.src, i), width, fake_quantized_.as<float>() + i * width);
    });
  }
  matmul(op, rows, worker);
}

// Row i goes to quantized row i; with Fine, what that leaves over goes to quantized row rows + i.
void Executor::quantize_rows(const LinearOp& op, int64_t begin, int64_t end, Worker& worker) {
  const int64_t width = program.buffers()[size_t(op.src)].width;
  const size_t stride = quantized_row_bytes(width);
  for (int64_t i = begin; i < end; ++i) {
    const float* x = row(op.src, i);
    std::byte* quantized = quantized_.data() + size_t(i) * stride;
    kernels_->quantize_row(x, width, op.quantize == Quantize::Row, quantized);
    if (op.quantize != Quantize::Fine) continue;
    auto* residual = scratch_[size_t(worker.index())].as<float>();
    const auto* blocks = reinterpret_cast<const QuantizedBlock*>(quantized);
    for (int64_t k = 0; k < width; ++k) {
      const QuantizedBlock& block = blocks[k / kBlock];
      residual[k] = x[k] - block.d * float(block.q[k % kBlock]);
    }
    kernels_->quantize_row(residual, width, false, quantized + size_t(rows_of(op.src)) * stride);
  }
}

// The panels of all parts are one list of work, so that small parts do not leave threads idle.
void Executor::matmul(const LinearOp& op, int64_t rows, Worker& worker) {
  int64_t panels = 0;
  for (const LinearPart& part : op.parts) panels += part.weight->panels;
  const int64_t grain = std::clamp<int64_t>(panels / (pool_.size() * 8), 1, 64);
  worker.each(panels, grain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    for (const LinearPart& part : op.parts) {
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, part.weight->panels);
      first += part.weight->panels;
      if (from < to) matmul_part(op, part, from, to, rows, worker);
    }
  });
}

void Executor::matmul_part(const LinearOp& op, const LinearPart& part, int64_t panel_begin, int64_t panel_end, int64_t rows,
                           Worker& worker) {
  const PackedMatrix& w = *part.weight;
  const auto kernel = kernels_->matmul[int(w.layout)];
  if (op.quantize == Quantize::Fine && !is_float(w.layout)) {
    const int64_t panels = fine_panels(rows);
    for (int64_t p = panel_begin; p < panel_end; p += panels)
      matmul_fine(op, part, p, std::min(p + panels, panel_end), rows, worker);
    return;
  }
  float* out = row(part.dst, 0) + part.dst_offset + panel_begin * kPanel;
  const int64_t out_stride = program.buffers()[size_t(part.dst)].width;
  const float* bias = part.bias.empty() ? nullptr : part.bias.data();
  const std::byte* x = quantized_.data();
  if (is_float(w.layout))
    x = op.quantize == Quantize::Row ? fake_quantized_.data() : reinterpret_cast<const std::byte*>(row(op.src, 0));
  const size_t stride = is_float(w.layout) ? size_t(w.cols) * sizeof(float) : quantized_row_bytes(w.cols);
  kernel(w, panel_begin, panel_end, x, stride, rows, out, out_stride, bias, op.accumulate);
}

// Both halves of the activations are rows of one product, so that weights are read and unpacked once; then they are added.
void Executor::matmul_fine(const LinearOp& op, const LinearPart& part, int64_t panel_begin, int64_t panel_end, int64_t rows,
                           Worker& worker) {
  const PackedMatrix& w = *part.weight;
  auto* sums = scratch_[size_t(worker.index())].as<float>();
  const int64_t stride = (panel_end - panel_begin) * kPanel, first = panel_begin * kPanel;
  const int64_t count = std::min(panel_end * kPanel, w.rows) - first;
  kernels_->matmul[int(w.layout)](w, panel_begin, panel_end, quantized_.data(), quantized_row_bytes(w.cols), 2 * rows, sums,
                                  stride, nullptr, false);
  for (int64_t i = 0; i < rows; ++i) {
    float* coarse = sums + i * stride;
    if (!part.bias.empty()) kernels_->add(coarse, part.bias.data() + first, count);
    float* out = row(part.dst, i) + part.dst_offset + first;
    if (op.accumulate) kernels_->add(out, coarse, count);
    else std::copy_n(coarse, count, out);
    kernels_->add(out, sums + (rows + i) * stride, count);
  }
}

void Executor::run(const RopeOp& op, Worker& worker) {
  const auto n = int64_t(program.ropes()[size_t(op.table)].shorter.size());
  const auto* cos = rope_cos_[size_t(op.table)].as<float>();
  const auto* sin = rope_sin_[size_t(op.table)].as<float>();
  worker.each(rows_of(op.qkv), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t h = 0; h < op.heads + op.kv_heads; ++h) {
        float* head = row(op.qkv, i) + h * op.head_dim;
        const Vector& norm = h < op.heads ? op.q_norm : op.k_norm;
        if (!norm.empty()) kernels_->rms_norm(head, norm.data(), op.eps, op.head_dim, head);
        if (op.rotary_dim > 0) kernels_->rope(head, cos + i * n, sin + i * n, op.rotary_dim);
      }
    }
  });
}

void Executor::run(const GatedOp& op, Worker& worker) {
  const int64_t n = program.buffers()[size_t(op.dst)].width;
  worker.each(rows_of(op.src), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels_->gated(op.kind, row(op.src, i), row(op.src, i) + n, n, row(op.dst, i));
  });
}

void Executor::run(const AddOp& op, Worker& worker) {
  const int64_t n = program.buffers()[size_t(op.dst)].width;
  worker.each(rows_of(op.dst), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels_->add(row(op.dst, i), row(op.src, i), n);
  });
}

void Executor::run(const SelectOp& op, Worker& worker) {
  const auto bytes = size_t(program.buffers()[size_t(op.dst)].width) * sizeof(float);
  worker.each(rows_of(op.dst), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(row(op.dst, i), row(op.src, batch_.rows[size_t(i)]), bytes);
  });
}

void Executor::run(const SoftcapOp& op, Worker& worker) {
  const int64_t n = program.buffers()[size_t(op.buffer)].width;
  worker.each(rows_of(op.buffer), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels_->softcap(row(op.buffer, i), op.cap, n);
  });
}

}  // namespace pocketlm
