// Attention for the CPU that runs, as TVM functions with the arguments of TVM's own kernels
// (tvm/relax/frontend/nn/llm), which are plain loops on one thread. Rotations must be applied before.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "src/cpu/common.h"

namespace mlc_bazel {
namespace cpu {
namespace {

using tvm::ffi::TensorView;

// Rows of queries that a thread takes at a time.
constexpr int64_t kRowsPerTask = 16;

constexpr float kLog2E = 1.44269504088896f;

const int32_t* Integers(TensorView tensor, const char* what) {
  TVM_FFI_CHECK(tensor.dtype().code == kDLInt && tensor.dtype().bits == 32 && tensor.IsContiguous(), TypeError)
      << what << ": expected contiguous int32";
  return static_cast<const int32_t*>(Data(tensor));
}

// One sequence of a batch: its rows of queries, and where a head's keys and values are.
template <typename T, typename Count, typename Find>
void AttendSequences(int64_t sequences, const int32_t* query_starts, TensorView q, TensorView out, TensorView lse,
                     int64_t key_heads, bool causal, float scale, const Count& count, const Find& find) {
  const Kernels& kernels = Chosen();
  int64_t heads = q.size(1), size = q.size(2), group = heads / key_heads;
  struct Task {
    int64_t sequence, head, row;
  };
  std::vector<Task> tasks;
  double operations = 0;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    int64_t rows = query_starts ? query_starts[sequence + 1] - query_starts[sequence] : 1;
    operations += 2.0 * rows * heads * size * count(sequence);
    for (int64_t row = 0; row < rows; row += kRowsPerTask)
      for (int64_t head = 0; head < key_heads; ++head) tasks.push_back({sequence, head, row});
  }
  // The last rows of a sequence see most keys: begin with them, so that no thread is left with a long one.
  std::reverse(tasks.begin(), tasks.end());
  Parallel(tasks.size(), operations, [&](int64_t index) {
    Task task = tasks[index];
    int64_t start = query_starts ? query_starts[task.sequence] : task.sequence;
    int64_t rows = query_starts ? query_starts[task.sequence + 1] - start : 1;
    static thread_local std::vector<const T*> keys, values;
    find(task.sequence, task.head, &keys, &values);
    int64_t first = start + task.row, seen = keys.size();
    Attention<T> attention;
    attention.queries = static_cast<const T*>(Data(q)) + (first * heads + task.head * group) * size;
    attention.out = static_cast<T*>(Data(out)) + (first * heads + task.head * group) * size;
    attention.query_stride = heads * size;
    attention.rows = std::min(kRowsPerTask, rows - task.row);
    attention.group = group;
    attention.size = size;
    attention.lse = static_cast<float*>(Data(lse)) + first * heads + task.head * group;
    attention.lse_stride = heads;
    attention.keys = keys.data();
    attention.values = values.data();
    attention.count = seen;
    attention.visible = seen - rows + task.row + 1;
    attention.causal = causal;
    attention.scale = scale;
    if constexpr (sizeof(T) == 4)
      kernels.attend_f32(attention);
    else
      kernels.attend_f16(attention);
  });
}

void CheckRotation(int64_t mode) {
  TVM_FFI_CHECK(mode == 0, ValueError) << "expected rotations before the attention, found rotary mode " << mode;
}

void CheckShape(TensorView tensor, std::initializer_list<int64_t> shape, const char* what) {
  bool same = tensor.ndim() == static_cast<int>(shape.size()) && tensor.IsContiguous();
  for (int i = 0; same && i < tensor.ndim(); ++i) same = tensor.size(i) == shape.begin()[i];
  TVM_FFI_CHECK(same, ValueError) << what << ": expected another shape, for q, the keys and the sequences";
}

// q, out: [rows, heads, size]; lse: [rows, heads]. `starts`, [sequences + 1], are those of the queries of each sequence; if
// there are none, each sequence has one.
void CheckQueries(TensorView q, const int32_t* starts, int64_t sequences, int64_t key_heads, int64_t key_size,
                  DLDataType key_type, TensorView out, TensorView lse) {
  TVM_FFI_CHECK(q.ndim() == 3 && q.IsContiguous(), ValueError) << "q: expected three contiguous dimensions";
  bool same = q.dtype().code == kDLFloat && key_type.code == kDLFloat && out.dtype().code == kDLFloat &&
              q.dtype().bits == key_type.bits && out.dtype().bits == key_type.bits &&
              (key_type.bits == 32 || key_type.bits == 16);
  TVM_FFI_CHECK(same, TypeError) << "expected q, keys, values and out all float32 or all float16";
  TVM_FFI_CHECK(IsFloat(lse.dtype(), 32), TypeError) << "lse: expected float32";
  const int64_t rows = q.size(0), heads = q.size(1), size = q.size(2);
  TVM_FFI_CHECK(size % 16 == 0, ValueError) << "expected heads of a multiple of 16 numbers, found " << size;
  TVM_FFI_CHECK(size == key_size && key_heads > 0 && heads % key_heads == 0, ValueError)
      << "expected keys for " << heads << " heads of " << size << " numbers, found " << key_heads << " of " << key_size;
  CheckShape(out, {rows, heads, size}, "out");
  CheckShape(lse, {rows, heads}, "lse");
  bool inside = starts ? starts[0] >= 0 && starts[sequences] <= rows : sequences <= rows;
  for (int64_t i = 0; inside && starts && i < sequences; ++i) inside = starts[i] <= starts[i + 1];
  TVM_FFI_CHECK(inside, ValueError) << "expected " << sequences << " sequences within " << rows << " rows of q";
}

// Keys and values in pages: [pages, 2, heads, page_size, size].
template <typename T>
void Paged(TensorView q, const int32_t* query_starts, TensorView pages, TensorView page_starts,
           TensorView page_numbers, TensorView lengths, TensorView out, TensorView lse, bool causal, float scale) {
  TVM_FFI_CHECK(pages.ndim() == 5 && pages.IsContiguous() && pages.size(1) == 2, ValueError)
      << "pages: expected [pages, 2, heads, page size, head size]";
  const int32_t* starts = Integers(page_starts, "page_indptr");
  const int32_t* numbers = Integers(page_numbers, "page_values");
  const int32_t* length = Integers(lengths, "length_info");
  int64_t batch = page_starts.size(0) - 1, heads = pages.size(2), page_size = pages.size(3), size = pages.size(4);
  // With a sliding window: the length of the last page, the first position of the window, the size of the sink.
  bool window = lengths.ndim() == 2;
  CheckQueries(q, query_starts, batch, heads, size, pages.dtype(), out, lse);
  TVM_FFI_CHECK(lengths.size(lengths.ndim() - 1) == batch && (!window || lengths.size(0) == 3), ValueError)
      << "length_info: expected " << batch << " sequences";
  TVM_FFI_CHECK(starts[0] >= 0 && starts[batch] <= page_numbers.size(0), ValueError)
      << "page_indptr: expected at most " << page_numbers.size(0) << " pages, found " << starts[batch];
  for (int64_t i = starts[0]; i < starts[batch]; ++i)
    TVM_FFI_CHECK(0 <= numbers[i] && numbers[i] < pages.size(0), ValueError)
        << "page_values: expected numbers below " << pages.size(0) << ", found " << numbers[i];
  const T* memory = static_cast<const T*>(Data(pages));
  auto count = [=](int64_t sequence) -> int64_t {
    int64_t used = starts[sequence + 1] - starts[sequence];
    int64_t hidden = window ? length[batch + sequence] - length[2 * batch + sequence] : 0;
    return used == 0 ? 0 : (used - 1) * page_size + length[sequence] - hidden;
  };
  auto find = [=](int64_t sequence, int64_t head, std::vector<const T*>* keys, std::vector<const T*>* values) {
    int64_t begin = starts[sequence];
    int64_t offset = window ? length[batch + sequence] : 0, sink = window ? length[2 * batch + sequence] : 0;
    keys->resize(count(sequence));
    values->resize(keys->size());
    for (int64_t i = 0; i < static_cast<int64_t>(keys->size()); ++i) {
      int64_t position = i < sink || !window ? i : i - sink + offset;
      int64_t page = numbers[begin + position / page_size];
      const T* key = memory + ((page * 2 * heads + head) * page_size + position % page_size) * size;
      (*keys)[i] = key;
      (*values)[i] = key + heads * page_size * size;
    }
  };
  AttendSequences<T>(batch, query_starts, q, out, lse, heads, causal, scale, count, find);
}

void Decode(TensorView q, TensorView pages, TensorView page_starts, TensorView page_numbers, TensorView lengths,
            TensorView /*k_rope_pos_offset*/, TensorView /*q_rope_position*/, TensorView out, TensorView lse,
            int64_t rotary_mode, double /*rope_scale*/, double /*rope_theta*/, double scale) {
  CheckRotation(rotary_mode);
  float log2_scale = static_cast<float>(scale) * kLog2E;
  auto run = q.dtype().bits == 32 ? Paged<float> : Paged<uint16_t>;
  run(q, nullptr, pages, page_starts, page_numbers, lengths, out, lse, false, log2_scale);
}

void Prefill(TensorView q, TensorView query_starts, TensorView pages, TensorView page_starts, TensorView page_numbers,
             TensorView lengths, TensorView /*k_rope_pos_offset*/, TensorView /*q_rope_position*/, TensorView out,
             TensorView lse, int64_t causal, int64_t rotary_mode, double /*rope_scale*/, double /*rope_theta*/,
             double scale) {
  CheckRotation(rotary_mode);
  float log2_scale = static_cast<float>(scale) * kLog2E;
  auto run = q.dtype().bits == 32 ? Paged<float> : Paged<uint16_t>;
  run(q, Integers(query_starts, "q_indptr"), pages, page_starts, page_numbers, lengths, out, lse, causal > 0,
      log2_scale);
}

// Keys and values side by side: [positions, heads, size].
template <typename T>
void Dense(TensorView q, TensorView query_starts, TensorView k, TensorView v, TensorView key_starts, TensorView out,
           TensorView lse, bool causal, float scale) {
  const int32_t* starts = Integers(key_starts, "kv_indptr");
  int64_t heads = k.size(1), size = k.size(2), batch = key_starts.size(0) - 1;
  const int32_t* queries = Integers(query_starts, "q_indptr");
  TVM_FFI_CHECK(query_starts.size(0) == batch + 1, ValueError) << "q_indptr: expected " << batch << " sequences";
  CheckQueries(q, queries, batch, heads, size, k.dtype(), out, lse);
  TVM_FFI_CHECK(starts[0] >= 0 && starts[batch] <= k.size(0), ValueError)
      << "kv_indptr: expected at most " << k.size(0) << " keys, found " << starts[batch];
  const T *key_memory = static_cast<const T*>(Data(k)), *value_memory = static_cast<const T*>(Data(v));
  auto count = [=](int64_t sequence) -> int64_t { return starts[sequence + 1] - starts[sequence]; };
  auto find = [=](int64_t sequence, int64_t head, std::vector<const T*>* keys, std::vector<const T*>* values) {
    int64_t begin = starts[sequence];
    keys->resize(count(sequence));
    values->resize(keys->size());
    for (int64_t i = 0; i < static_cast<int64_t>(keys->size()); ++i) {
      int64_t place = ((begin + i) * heads + head) * size;
      (*keys)[i] = key_memory + place;
      (*values)[i] = value_memory + place;
    }
  };
  AttendSequences<T>(batch, queries, q, out, lse, heads, causal, scale, count, find);
}

void Ragged(TensorView q, TensorView query_starts, TensorView k, TensorView v, TensorView key_starts,
            TensorView /*q_rope_position*/, TensorView /*k_rope_pos_offset*/, TensorView out, TensorView lse,
            int64_t causal, int64_t rotary_mode, double /*rope_scale*/, double /*rope_theta*/, double scale) {
  CheckRotation(rotary_mode);
  TVM_FFI_CHECK(k.ndim() == 3 && k.IsContiguous(), ValueError) << "k: expected three contiguous dimensions";
  CheckShape(v, {k.size(0), k.size(1), k.size(2)}, "v");
  TVM_FFI_CHECK(v.dtype().code == k.dtype().code && v.dtype().bits == k.dtype().bits, TypeError)
      << "expected values of the keys' type";
  float log2_scale = static_cast<float>(scale) * kLog2E;
  auto run = q.dtype().bits == 32 ? Dense<float> : Dense<uint16_t>;
  run(q, query_starts, k, v, key_starts, out, lse, causal > 0, log2_scale);
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("mlc_bazel.cpu.attention_decode", Decode)
      .def("mlc_bazel.cpu.attention_prefill", Prefill)
      .def("mlc_bazel.cpu.attention_ragged", Ragged);
}

}  // namespace
}  // namespace cpu
}  // namespace mlc_bazel
