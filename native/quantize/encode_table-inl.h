// Fills the table of encoders from the bodies that were compiled for this translation unit's instruction set.
#pragma once

#include "quantize/encode_rows-inl.h"

namespace pocketlm {
namespace {

template <class Block, int N, class Nearest>
constexpr BlockEncoder encoder(int type) {
  return {type, encode_groups<Block, N, Nearest>, encode_groups<Block, N, Nearest>};
}

template <class Nearest>
constexpr BlockEncoder encoder(int type) {
  return {type, encode_supers<Nearest>, encode_supers<Nearest>};
}

constexpr Encoders table(const char* name) {
  return {
      .name = name,
      .load_f32 = load_row<SourceF32>,
      .load_f16 = load_row<SourceF16>,
      .load_bf16 = load_row<SourceBF16>,
      .of = {{kF32, encode_f32, encode_f32},
             {kF16, encode_f16, encode_f16},
             {kBF16, encode_bf16, encode_bf16},
             encoder<BlockQ4_0, 32, NearestSigned<8>>(kQ4_0),
             encoder<BlockQ4_1, 32, NearestAffine<15>>(kQ4_1),
             encoder<BlockQ5_0, 32, NearestSigned<16>>(kQ5_0),
             encoder<BlockQ5_1, 32, NearestAffine<31>>(kQ5_1),
             encoder<BlockQ8_0, 32, NearestSymmetric<127, 0>>(kQ8_0),
             encoder<NearestQ2_K>(kQ2_K),
             encoder<NearestQ3_K>(kQ3_K),
             encoder<NearestQ4_K>(kQ4_K),
             encoder<NearestQ5_K>(kQ5_K),
             encoder<NearestQ6_K>(kQ6_K),
             encoder<BlockTQ1_0, 256, NearestSymmetric<1, 1>>(kTQ1_0),
             encoder<BlockTQ2_0, 256, NearestSymmetric<1, 1>>(kTQ2_0)},
  };
}

}  // namespace
}  // namespace pocketlm
