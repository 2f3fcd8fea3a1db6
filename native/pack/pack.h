// From the file's blocks to packed panels, and one row back.
#pragma once

#include <cstdint>

#include "pack/layout.h"

namespace pocketlm {

// The layout that holds weights of a GGUF type; throws FormatError for a type that has none.
Layout layout_for(int ggml_type);

// Packs panels [panel_begin, panel_end) of `out` from `source`: rows in file order, each of row_bytes bytes of
// `ggml_type` blocks. Row r of the matrix is row row_map[r] of the file (row_map may be null: the identity).
// Thread-compatible: disjoint panel ranges may be packed at the same time.
void pack_panels(int ggml_type, const std::byte* source, size_t row_bytes, const int32_t* row_map,
                 int64_t panel_begin, int64_t panel_end, PackedMatrix& out);

// Row `row` as cols floats, equal to what the file's block type decodes to up to the rounding of one multiply-add.
void unpack_row(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace pocketlm
