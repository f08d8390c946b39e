/* Decoding by one CUDA graph a step.
 *
 * A graph holds addresses and grids, so a step may only use one if what TVM and FlashInfer give the attention's kernels is
 * the same as when it was captured; what changes from step to step is behind these addresses. The model's functions
 * (models/private/graph_steps.py) ask begin_step, and otherwise launch layer by layer.
 *
 * Part of TVM's paged_kv_cache.cc (third_party/tvm/tvm.BUILD.bazel), which has no header.
 */
struct GraphSteps {
  /* Makes a step of decoding ready.
   *
   * Returns what the host gives the attention's kernels: the number of sequences, addresses, and FlashInfer's plan. Empty,
   * and nothing is changed, if the step is none for a graph: prompts, trees of drafts, sequences that were forked,
   * sliding windows, other kernels, too many sequences.
   */
  static std::vector<int64_t> Begin(PagedAttentionKVCacheObj* cache) {
    PagedPrefillFunc* attention = cache->f_attention_prefill_.get();
    const bool is_full = std::all_of(cache->attn_kinds_.begin(), cache->attn_kinds_.end(),
                                     [](AttnKind kind) { return kind == AttnKind::kMHA; });
    if (!cache->dirty_aux_data_device_ || !cache->is_decode_request_ || !cache->append_before_attn_ || !is_full ||
        cache->num_depths_ != 1 || !cache->is_chain_on_depths_[0] || cache->support_sliding_window_ ||
        cache->transfer_kv_ || cache->page_to_page_transfer_kv_ || attention == nullptr ||
        attention->backend_kind != AttnBackendKind::kFlashInfer || !HasRoom(cache)) {
      return {};
    }
    // FlashInfer's kernel for decoding is for some sizes of groups only.
    cache->use_decode_kernel_[0] = false;
    attention->for_graph = true;
    try {
      cache->ComputeStreamWaitForCopyStream();
    } catch (...) {
      attention->for_graph = false;
      // The next attention must not use what is only half made.
      cache->dirty_aux_data_device_ = true;
      throw;
    }
    attention->for_graph = false;
    std::vector<int64_t> given{cache->cur_batch_size_};
    for (const Tensor& each : {cache->q_rope_position_map_view_, cache->qo_indptr_on_depths_view_[0],
                               cache->page_indptr_on_depths_view_[0], cache->page_indices_on_depths_view_[0],
                               cache->length_info_on_depths_view_[0], cache->append_position_map_view_}) {
      given.push_back(reinterpret_cast<int64_t>(each->data) + static_cast<int64_t>(each->byte_offset));
    }
    for (int64_t each : attention->Plan(0)) {
      given.push_back(each);
    }
    return given;
  }

  /* Whether FlashInfer's workspace holds the parts of a plan for a graph, which splits every sequence (PrefillPlan in its
   * scheduler.cuh).
   */
  static bool HasRoom(PagedAttentionKVCacheObj* cache) {
    const int64_t group = cache->num_qo_heads_ / cache->num_kv_heads_;
    const int64_t tile = group > 64 ? 128 : group > 16 ? 64 : 16;
    ffi::Any processors;
    DeviceAPI::Get(cache->device_)->GetAttr(cache->device_, kMultiProcessorCount, &processors);
    const int64_t split = 2 * processors.cast<int64_t>() / cache->num_kv_heads_;
    const int64_t tiles = (cache->cur_batch_size_ * group + tile - 1) / tile + cache->cur_batch_size_ - 1;
    const int64_t floats = cache->num_qo_heads_ * std::max(split, tiles) * tile * (cache->v_head_dim_ + 1);
    constexpr int64_t kAlignment = 32;  // Of both parts.
    return floats * static_cast<int64_t>(sizeof(float)) + kAlignment <= kFloatAttnWorkspaceByte;
  }

  /* A number of its own for each cache: another may later have the same address. */
  static int64_t Id(PagedAttentionKVCacheObj* cache) {
    static std::atomic<int64_t> last{0};
    if (cache->graph_steps_id_ == 0) {
      cache->graph_steps_id_ = ++last;
    }
    return cache->graph_steps_id_;
  }

  static int64_t Sequences(PagedAttentionKVCacheObj* cache) { return cache->cur_batch_size_; }

  /* The cache of this thread's step. */
  static PagedAttentionKVCacheObj*& Current() {
    static thread_local PagedAttentionKVCacheObj* current = nullptr;
    return current;
  }
};

/* What the graphs of a virtual machine were captured with. */
class GraphStepsNode : public VMExtensionNode {
 public:
  /* Whether the graphs are, or will be, this cache's. */
  bool AreOf(int64_t cache) {
    if (cache_ == 0) {
      cache_ = cache;
    }
    return cache == cache_;
  }

  /* Whether a graph was, or will now be, captured with this. */
  bool Fits(std::vector<int64_t> given) {
    const int64_t sequences = given[0];
    const auto found = given_.emplace(sequences, given).first;
    return found->second == given;
  }

  static constexpr const bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("mlc_bazel.GraphSteps", GraphStepsNode, VMExtensionNode);

 private:
  int64_t cache_ = 0;
  std::unordered_map<int64_t, std::vector<int64_t>> given_;
};

class GraphStepsExtension : public VMExtension {
 public:
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NULLABLE(GraphStepsExtension, VMExtension, GraphStepsNode);
  static GraphStepsExtension Create() { return GraphStepsExtension(ffi::make_object<GraphStepsNode>()); }
};

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def_packed("mlc_bazel.begin_step",
                  [](ffi::PackedArgs args, ffi::Any* found) {
                    VirtualMachine* machine = VirtualMachine::GetContextPtr(args[0]);
                    auto state = args[1].cast<AttentionKVCache>();
                    auto* cache = const_cast<PagedAttentionKVCacheObj*>(state.as<PagedAttentionKVCacheObj>());
                    GraphSteps::Current() = cache;
                    *found = false;
                    // TVM's graphs are for a number of rows, which may be more than the sequences.
                    if (cache == nullptr || args[2].cast<Tensor>()->shape[0] != GraphSteps::Sequences(cache)) {
                      return;
                    }
                    auto steps = machine->GetOrCreateExtension<GraphStepsExtension>();
                    if (steps->AreOf(GraphSteps::Id(cache))) {
                      std::vector<int64_t> given = GraphSteps::Begin(cache);
                      *found = !given.empty() && steps->Fits(std::move(given));
                    }
                  })
      .def("mlc_bazel.copy_into_step",
           [](Tensor from, Tensor to) {
             Tensor::CopyFromTo(from.operator->(), const_cast<DLTensor*>(to.operator->()),
                                DeviceAPI::Get(to->device)->GetCurrentStream(to->device));
           })
      .def("mlc_bazel.attention_in_step", [](int64_t layer, double scale, Tensor qkv, Tensor out) {
        PagedAttentionKVCacheObj* cache = GraphSteps::Current();
        TVM_FFI_ICHECK(cache != nullptr) << "expected mlc_bazel.begin_step before a step's attention";
        cache->AttentionWithFusedQKV(layer, std::move(qkv), std::nullopt, std::move(out), scale);
      });
}
