// Fills the table of kernels from the bodies that were compiled for this translation unit's instruction set.
#pragma once

#include "kernels/attention-inl.h"
#include "kernels/kernels.h"
#include "kernels/matmul-inl.h"
#include "kernels/rowwise-inl.h"

namespace pocketlm {
namespace {

constexpr Kernels kTable = {
    .name = isa::kName,
    .quantize_row = quantize_row,
    .fake_quantize_row = fake_quantize_row,
    .matmul = {matmul_float<ElementF32>, matmul_float<ElementF16>, matmul_float<ElementBF16>,
               matmul_quantized<FormatQ4_0>, matmul_quantized<FormatQ4_1>, matmul_quantized<FormatQ5_0>,
               matmul_quantized<FormatQ5_1>, matmul_quantized<FormatQ8_0>, matmul_quantized<FormatQ2_K>,
               matmul_quantized<FormatQ3_K>, matmul_quantized<FormatQ4_K>, matmul_quantized<FormatQ5_K>,
               matmul_quantized<FormatQ6_K>, matmul_quantized<FormatTernary>},
    .rms_norm = rms_norm,
    .rope = rope,
    .gated = gated,
    .add = add,
    .scale = scale,
    .softcap = softcap,
    .store_kv = store_kv,
    .attend = attend,
    .merge = merge,
    .finish = finish,
};

}  // namespace
}  // namespace pocketlm
