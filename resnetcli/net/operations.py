"""MACs of torch operations: a formula, zero, or unknown (which is reported, not counted as 0)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from resnetcli.frozen import frozen

Arguments = Mapping[str, Any]
"""An operation's arguments by their names in its schema."""


@frozen
class Product:
    """A convolution or a product of matrices."""

    macs: int
    elements: int
    """Elements of its output."""
    factors: tuple[Any, ...] = ()
    """Tensors or packed weights. The product is a layer if one factor depends on the image and another does not;
    without factors it is not a layer."""
    convolution: bool = False
    """A layer even if its kernel depends on the image."""
    attention: bool = False
    """Never a layer."""
    layers: int = 1
    """Number of consecutive layers, if it is a layer."""


UNKNOWN = "unknown"
"""An operation that may multiply and has no formula."""


def has_formula(func: Any) -> bool:
    """Whether an operation has a formula: others are decomposed."""
    packet = func._overloadpacket
    return packet in flop_registry or base_name(packet.__name__) in FORMULAS.get(func.namespace, {})


def product_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Product | str | None:
    """The product that a call computes; None if it does not multiply, UNKNOWN without a formula."""
    namespace, name = func.namespace, base_name(func._overloadpacket.__name__)
    kind = kind_of(namespace, name)
    if kind == "free":
        return None
    outputs = [*tensors_in(result), *written_tensors(func, args, kwargs)]
    try:
        if kind == "counted":
            return FORMULAS[namespace][name](_bound(func, args, kwargs), outputs)
        if (
            formula := flop_registry.get(func._overloadpacket)
        ) is not None:  # includes formulas that other libraries register
            macs = formula(*args, **kwargs, out_val=result) // 2
            read = tuple(tensors_in((args, kwargs)))
            return Product(macs, outputs[0].numel(), read[:2], attention="attention" in name)
    except Exception:  # formulas do not support sparse or nested tensors
        return UNKNOWN
    return UNKNOWN


def _bound(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    known = func._schema.arguments
    bound = {each.name: each.default_value for each in known if each.has_default_value()}
    return bound | {each.name: value for each, value in zip(known, args, strict=False)} | dict(kwargs)


def written_tensors(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a call writes to."""
    known = func._schema.arguments
    if not any(each.is_write for each in known):
        return []
    bound = _bound(func, args, kwargs)
    return tensors_in([bound.get(each.name) for each in known if each.is_write])


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in an operation's arguments or results."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def base_name(name: str) -> str:
    """The name without the underscore of in-place operations: `addmm` for `addmm_`."""
    return name if name.endswith("__") else name.rstrip("_")


@cache
def kind_of(namespace: str, name: str) -> str:
    """`counted`, `free` or `unknown`, by the base name of an operation."""
    if name in FORMULAS.get(namespace, {}):
        return "counted"
    if namespace == "aten":
        return "free" if name not in NAMED and _is_free(name) else UNKNOWN
    if namespace in {"prims", "prim"}:
        return UNKNOWN if name in {"svd", "fft_c2c", "fft_c2r", "fft_r2c"} else "free"
    if namespace in {"c10d", "_c10d_functional", "symm_mem", "profiler"}:  # they move data
        return "free"
    return "free" if name in OTHERS_FREE.get(namespace, frozenset()) else UNKNOWN


def _is_free(name: str) -> bool:
    """Whether an aten operation is element-wise, a reduction, or only moves or creates data."""
    if name in FREE or _has(name, lambda overload: overload.is_view or torch.Tag.pointwise in overload.tags):
        return True
    cores = [name.removeprefix("_foreach_")]
    cores += [name.removesuffix(ending) for ending in ("_copy", "_functional", "_backward", "_backward_data")]
    known = NAMED | FORMULAS["aten"].keys() | {name}
    return any(core not in known and _is_free(core) for core in cores)


def _has(name: str, holds: Callable[[Any], bool]) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and any(holds(getattr(packet, overload)) for overload in packet.overloads())


# --- formulas ----------------------------------------------------------------------------------------------------


def _matrices(left: str, right: str) -> Callable[[Arguments, list[Tensor]], Product]:
    """(..., m, k) x (..., k, n): m n k MACs per pair of matrices, summed over the last axis of the left operand."""

    def formula(x: Arguments, y: list[Tensor]) -> Product:
        a, b = x[left], x[right]
        _dense(a, b)
        macs = a.numel() * b.shape[-1]
        return Product(macs, macs // a.shape[-1] if a.shape[-1] else y[0].numel(), (a, b))

    return formula


def _packed(left: str, right: str, inputs: str = "") -> Callable[[Arguments, list[Tensor]], Product]:
    """A product with a packed matrix: each output is a sum over the last axis of the left operand."""

    def formula(x: Arguments, y: list[Tensor]) -> Product:
        _dense(x[left])
        return Product(y[0].numel() * (x[inputs] if inputs else x[left].shape[-1]), y[0].numel(), (x[left], x[right]))

    return formula


def _vectors(left: str, right: str, outer: bool = False) -> Callable[[Arguments, list[Tensor]], Product]:
    def formula(x: Arguments, y: list[Tensor]) -> Product:
        a, b = x[left], x[right]
        _dense(a, b)
        return Product(a.numel() * (b.numel() if outer else 1), y[0].numel(), (a, b))

    return formula


def _convolution(kernel: str = "weight", transposed: bool = False) -> Callable[[Arguments, list[Tensor]], Product]:
    """One kernel per output element (input element if transposed): (channels out or in, group's others, *window)."""

    def formula(x: Arguments, y: list[Tensor]) -> Product:
        image, weight = next(x[name] for name in ("self", "input") if name in x), x[kernel]
        _dense(image, weight)
        across = x.get("transposed", transposed)
        at = image if across else y[0]
        return Product(at.numel() * math.prod(weight.shape[1:]), y[0].numel(), (image, weight), convolution=True)

    return formula


def _conv_tbc(x: Arguments, y: list[Tensor]) -> Product:
    window, channels, _ = x["weight"].shape
    return Product(y[0].numel() * window * channels, y[0].numel(), (x["self"], x["weight"]), convolution=True)


def _trilinear(x: Arguments, y: list[Tensor]) -> Product:
    """One MAC per product of three numbers."""
    ranks = [x[f"i{i}"].dim() + len(x[f"expand{i}"]) for i in (1, 2, 3)]
    sizes = [1] * ranks[0]
    for i in (1, 2, 3):
        shape = iter(x[f"i{i}"].shape)
        full = [1 if axis in x[f"expand{i}"] else next(shape) for axis in range(ranks[0])]
        sizes = [max(pair) for pair in zip(sizes, full, strict=True)]
    return Product(math.prod(sizes), y[0].numel(), (x["i1"], x["i2"], x["i3"]))


def _grouped(x: Arguments, y: list[Tensor]) -> Product:
    """Groups of rows, columns or sums: each row of the left operand is multiplied with one group's columns."""
    left = next(x[name] for name in ("self", "mat_a") if name in x)
    right = next(x[name] for name in ("mat2", "mat_b") if name in x)
    by_columns = left.dim() == 3 and right.dim() == 2
    macs = y[0].numel() * left.shape[-1] if by_columns else left.numel() * right.shape[-1]
    return Product(macs, y[0].numel(), (left, right))


def _each_pair(x: Arguments, y: list[Tensor]) -> Product:
    pairs = [*zip(x["self"], x["mat2"], strict=True)]
    return Product(sum(a.numel() * b.shape[-1] for a, b in pairs), sum(t.numel() for t in y), (*x["self"], *x["mat2"]))


def _attention(x: Arguments, y: list[Tensor]) -> Product:
    """Scores of queries (..., heads, s, d) with keys (..., s', d), then values (..., s', d')."""
    query, key, value = x["query"], x["key"], x["value"]
    rows, along = query.numel() // query.shape[-1], key.shape[-2]
    macs = rows * along * (query.shape[-1] + value.shape[-1])
    return Product(macs, rows * (along + value.shape[-1]), (query, key, value), attention=True)


def _recurrent(weights: Callable[[Arguments], list[Tensor]]) -> Callable[[Arguments, list[Tensor]], Product]:
    """Each matrix of a layer once per step and sequence."""

    def formula(x: Arguments, y: list[Tensor]) -> Product:
        matrices = [w for w in weights(x) if w.dim() > 1]
        sequence = x["input"]
        tokens = sequence.numel() // sequence.shape[-1]
        rows = sum(w.shape[0] for w in matrices)
        steps = max(sequence.shape[:-1])
        return Product(tokens * sum(w.numel() for w in matrices), tokens * rows, (sequence, *matrices), layers=steps)

    return formula


def _affine_grid(x: Arguments, y: list[Tensor]) -> Product:
    return Product(y[0].numel() * x["theta"].shape[-1], y[0].numel())


def _backward(x: Arguments, y: list[Tensor]) -> Product:
    """As torch's formula for the gradient of a convolution, but channels count within their group only."""
    gradient, image, weight = x["grad_output"], x["input"], x["weight"]
    at = image if x["transposed"] else gradient
    one = at.numel() * math.prod(weight.shape[1:])
    return Product(one * sum(x["output_mask"][:2]), sum(each.numel() for each in y))


def _quantized(kind: str) -> Callable[[Arguments, list[Tensor]], Product]:
    def formula(x: Arguments, y: list[Tensor]) -> Product:
        image = next(value for value in x.values() if isinstance(value, Tensor))
        packed = next(value for value in x.values() if hasattr(value, "unpack"))
        weight = packed.unpack()[0]
        at = image if kind == "transposed" else y[0]
        work = at.numel() * math.prod(weight.shape[1:])
        return Product(work, y[0].numel(), (image, packed), convolution=kind != "linear")

    return formula


def _deformable(x: Arguments, y: list[Tensor]) -> Product:
    weight = x["weight"]
    return Product(y[0].numel() * math.prod(weight.shape[1:]), y[0].numel(), (x["input"], weight), convolution=True)


def _dense(*tensors: Tensor) -> None:
    """Raise ValueError for a sparse tensor: the meta device does not know its number of elements."""
    dense = {torch.strided, torch._mkldnn}  # type: ignore[attr-defined]
    if any(tensor.layout not in dense or tensor.is_nested for tensor in tensors):
        raise ValueError("not dense")


Formula = Callable[[Arguments, list[Tensor]], Product]
_PLAIN, _ACROSS = _convolution(), _convolution(transposed=True)

FORMULAS: Mapping[str, Mapping[str, Formula]] = {
    "aten": {
        "mm": _matrices("self", "mat2"),
        "bmm": _matrices("self", "mat2"),
        "_int_mm": _matrices("self", "mat2"),
        "addmm": _matrices("mat1", "mat2"),
        "_addmm_activation": _matrices("mat1", "mat2"),
        "addbmm": _matrices("batch1", "batch2"),
        "baddbmm": _matrices("batch1", "batch2"),
        "_scaled_mm": _matrices("self", "mat2"),
        "_scaled_mm_v2": _matrices("self", "mat2"),
        "linear": _packed("input", "weight"),
        "mkldnn_linear": _packed("self", "weight"),
        "_mixed_dtypes_linear": _packed("input", "weight"),
        "_weight_int8pack_mm": _packed("self", "mat2"),
        "_weight_int4pack_mm": _packed("self", "mat2"),
        "_weight_int4pack_mm_for_cpu": _packed("self", "mat2"),
        "_weight_int4pack_mm_with_scales_and_zeros": _packed("self", "mat2"),
        "_dyn_quant_matmul_4bit": _packed("inp", "packed_weights", "in_features"),
        "_grouped_mm": _grouped,
        "_scaled_grouped_mm": _grouped,
        "_scaled_grouped_mm_v2": _grouped,
        "_foreach_mm": _each_pair,
        "mv": _vectors("self", "vec"),
        "addmv": _vectors("mat", "vec"),
        "dot": _vectors("self", "tensor"),
        "vdot": _vectors("self", "other"),
        "addr": _vectors("vec1", "vec2", outer=True),
        "_trilinear": _trilinear,
        "conv_tbc": _conv_tbc,
        **dict.fromkeys(
            ("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "cudnn_convolution_relu",
             "cudnn_convolution_add_relu", "miopen_convolution", "miopen_convolution_relu",
             "miopen_convolution_add_relu", "miopen_depthwise_convolution", "mkldnn_convolution", "_mps_convolution",
             "_nnpack_spatial_convolution", "_slow_conv2d_forward", "slow_conv3d_forward", "slow_conv_dilated2d",
             "slow_conv_dilated3d", "_conv_depthwise2d", "conv_depthwise3d"),
            _PLAIN,
        ),
        **dict.fromkeys(
            ("cudnn_convolution_transpose", "miopen_convolution_transpose", "_mps_convolution_transpose",
             "slow_conv_transpose2d", "slow_conv_transpose3d"),
            _ACROSS,
        ),
        "convolution_backward": _backward,
        **dict.fromkeys(
            ("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
             "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu",
             "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math_for_mps"),
            _attention,
        ),
        "mkldnn_rnn_layer": _recurrent(lambda x: [x[f"weight{i}"] for i in range(2)]),
        "_cudnn_rnn": _recurrent(lambda x: x["weight"]),
        "miopen_rnn": _recurrent(lambda x: x["weight"]),
        "affine_grid_generator": _affine_grid,
    },
    "quantized": {
        **dict.fromkeys(
            ("linear", "linear_relu", "linear_leaky_relu", "linear_tanh", "linear_dynamic", "linear_relu_dynamic",
             "linear_dynamic_fp16", "linear_relu_dynamic_fp16"),
            _quantized("linear"),
        ),
        **dict.fromkeys(
            (f"conv{d}d{how}" for d in (1, 2, 3) for how in ("", "_relu", "_dynamic", "_add", "_add_relu")),
            _quantized("convolution"),
        ),
        **dict.fromkeys(
            (f"conv_transpose{d}d{how}" for d in (1, 2, 3) for how in ("", "_dynamic")), _quantized("transposed")
        ),
    },
    "torchvision": {"deform_conv2d": _deformable},
}  # fmt: skip
"""Namespace -> base name -> formula of a call's arguments and outputs."""

# --- operations without MACs and operations without a formula ---------------------------------------------------

_NAMED = """
    _cdist_forward _euclidean_dist _pdist_forward _cdist_backward _pdist_backward cdist
    _fft_c2c _fft_c2r _fft_r2c
    cholesky cholesky_inverse cholesky_solve _cholesky_solve_helper geqrf ormqr lu_unpack triangular_solve _spsolve
    _linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd linalg_cholesky_ex linalg_eig
    linalg_eigvals linalg_householder_product linalg_inv_ex linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu
    linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_pinv linalg_qr linalg_solve_triangular
    _compute_linear_combination
    _sparse_addmm _sparse_mm_reduce_impl _sparse_mm_reduce_impl_backward _sparse_sparse_matmul hspmm sspaddmm
    sparse_sampled_addmm _cslt_sparse_mm _cslt_sparse_mm_search _sparse_semi_structured_addmm
    _sparse_semi_structured_linear _sparse_semi_structured_mm
    _native_multi_head_attention _transformer_encoder_layer_fwd _triton_multi_head_attention
    _triton_scaled_dot_attention
    _cudnn_attention_forward _flash_attention_forward_no_dropout_inplace _lstm_mps quantized_gru quantized_lstm
    _ctc_loss _cudnn_ctc_loss miopen_ctc_loss _ctc_loss_backward
    _cudnn_attention_backward _cudnn_rnn_backward _scaled_dot_product_flash_attention_for_cpu_backward
    _scaled_dot_product_fused_attention_overrideable_backward _slow_conv2d_backward convolution_backward_overrideable
    cudnn_affine_grid_generator_backward linear_backward lstm_mps_backward matmul_backward miopen_rnn_backward
    mkldnn_linear_backward mkldnn_linear_backward_input mkldnn_linear_backward_weights mkldnn_rnn_layer_backward
    mps_convolution_backward mps_convolution_transpose_backward cudnn_affine_grid_generator
"""
NAMED = frozenset(_NAMED.split())
"""Operations of aten that multiply and have no formula: Fourier transforms, distances, decompositions, sparse ones."""

_FREE = """
    __irshift__ _adaptive_avg_pool2d _adaptive_avg_pool3d _add_relu _aminmax _amp_foreach_non_finite_check_and_unscale
    _amp_update_scale _assert_async _assert_scalar _assert_tensor_metadata _batch_norm_no_update
    _batch_norm_with_update _chunk_cat _coalesce _coalesced _convert_indices_from_coo_to_csr
    _convert_indices_from_csr_to_coo _convert_weight_to_int4pack _convert_weight_to_int4pack_for_cpu _copy_from
    _copy_from_and_resize _cslt_compress _cudnn_init_dropout_state _cudnn_rnn_flatten_weight _cummax_helper
    _cummin_helper _dimI _dimV _dirichlet_grad _dyn_quant_pack_4bit_weight _efficientzerotensor _embedding_bag
    _embedding_bag_dense_backward _embedding_bag_forward_only _embedding_bag_per_sample_weights_backward
    _empty_affine_quantized _empty_per_channel_affine_quantized _fake_quantize_learnable_per_channel_affine
    _fake_quantize_learnable_per_tensor_affine _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    _fill_mem_eff_dropout_mask _foreach_powsum _functional_assert_async _functional_assert_scalar
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size _fused_adagrad _fused_adam _fused_adamw
    _fused_dropout _fused_moving_avg_obs_fq_helper _fused_rms_norm_backward _fused_sdp_choice _fused_sgd
    _grid_sampler_2d_cpu_fallback _has_same_storage_numel _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _index_put_impl _is_all_true _is_any_true _jagged_to_padded_dense_forward
    _lazy_clone _linalg_check_errors _local_scalar_dense _log_softmax _logcumsumexp _make_dep_token
    _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor _masked_scale _masked_softmax _mkldnn_reshape
    _mkldnn_transpose _native_batch_norm_legit _native_batch_norm_legit_no_training
    _nested_compute_contiguous_strides_offsets _nested_from_padded _nested_from_padded_and_nested_example
    _nested_from_padded_tensor _nested_get_jagged_dummy _nested_get_lengths _nested_get_max_seqlen
    _nested_get_min_seqlen _nested_get_offsets _nested_get_ragged_idx _nested_select_backward _nested_sum_backward
    _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list _nested_tensor_size
    _nested_tensor_softmax_with_shape _nested_tensor_storage_offsets _nested_tensor_strides
    _new_zeros_with_same_feature_meta _nnz _pack_padded_sequence _padded_dense_to_jagged_forward _philox_key_fold_in
    _philox_key_split _philox_normal _philox_uniform _pin_memory _prelu_kernel _print _reshape_copy _resize_output
    _safe_softmax _sample_dirichlet _segment_reduce_backward _softmax _sparse_compressed_tensor_with_dims
    _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors _sparse_csr_prod _sparse_csr_sum
    _sparse_log_softmax _sparse_mask_projection _sparse_semi_structured_apply _sparse_semi_structured_apply_dense
    _sparse_semi_structured_tile _sparse_softmax _sparse_sum _spdiags _stack _standard_gamma _standard_gamma_grad
    _thnn_fused_gru_cell _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _to_copy _to_dense _to_sparse
    _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr _to_sparse_semi_structured _transform_bias_rescale_qkv
    _unique _unique2 _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate
    _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _use_cudnn_ctc_loss _use_miopen_ctc_loss
    _validate_compressed_sparse_indices _weight_norm_interface adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d all allclose amax amin aminmax any arange argmax
    argmin as_strided_scatter avg_pool1d avg_pool2d avg_pool3d bartlett_window batch_norm_backward
    batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats
    batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats bernoulli binary_cross_entropy
    binary_cross_entropy_with_logits bincount binomial blackman_window block_diag bucketize cat cauchy channel_shuffle
    col2im complex constant_pad_nd copy_sparse_to_sparse count_nonzero cudnn_batch_norm cudnn_grid_sampler cummax
    cummin cumprod cumsum dense_dim dequantize diag_embed diagonal_scatter dist embedding embedding_dense_backward
    embedding_renorm empty empty_like empty_permuted empty_quantized empty_strided exponential eye
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask fft_fftfreq fft_rfftfreq fill
    flip floor_divide fractional_max_pool2d fractional_max_pool3d from_file full full_like gather geometric glu
    glu_backward_jvp glu_jvp grid_sampler_2d grid_sampler_3d hamming_window hann_window hardswish hash_tensor histc
    histogram huber_loss im2col index index_add index_fill index_put index_reduce index_select int_repr is_coalesced
    is_pinned is_same_size is_set_to isin kaiser_window kthvalue lift linalg__powsum linalg_cross linalg_vector_norm
    linspace log_normal log_sigmoid_backward log_sigmoid_forward log_softmax logcumsumexp logspace logsumexp
    masked_scatter masked_select max_pool2d_backward max_pool2d_with_indices max_pool3d_with_indices max_unpool2d
    max_unpool3d mean median miopen_batch_norm mkldnn_adaptive_avg_pool2d mkldnn_max_pool2d mkldnn_max_pool3d
    mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight mode mse_loss multi_margin_loss
    multilabel_margin_loss_backward multilabel_margin_loss_forward multinomial nanmedian nansum native_batch_norm
    native_dropout native_group_norm native_layer_norm native_norm new_empty new_empty_strided new_full new_ones
    new_zeros nll_loss2d_backward nll_loss2d_forward nll_loss_backward nll_loss_forward nonzero nonzero_static norm
    normal ones ones_like pixel_shuffle pixel_unshuffle poisson polar prod put q_per_channel_axis q_per_channel_scales
    q_per_channel_zero_points q_scale q_zero_point qscheme quantize_per_channel quantize_per_tensor
    quantize_per_tensor_dynamic quantized_batch_norm quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
    rand rand_like randint randint_like randn randn_like random randperm range record_stream reflection_pad1d
    reflection_pad2d reflection_pad3d renorm repeat repeat_interleave replication_pad1d replication_pad2d
    replication_pad3d resize resize_as resize_as_sparse roll rot90 rrelu_with_noise scalar_tensor scatter scatter_add
    scatter_reduce searchsorted segment_reduce select_scatter set slice_scatter smooth_l1_loss soft_margin_loss
    softmax sort sparse_compressed_tensor sparse_coo_tensor sparse_dim sparse_mask sparse_resize
    sparse_resize_and_clear stack std std_mean sum sym_constrain_range sym_constrain_range_for_size take to_mkldnn
    to_padded_tensor topk trace tril tril_indices triu triu_indices uniform unique_consecutive unique_dim
    unique_dim_consecutive unsafe_split unsafe_split_with_sizes upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean zero
    zeros zeros_like
"""
FREE = frozenset(_FREE.split())
"""aten operations that count 0 by every convention: element-wise operations, normalisation, pooling, interpolation,
reductions, data movement and creation. Views, and operations that torch tags as pointwise, need not be listed."""

OTHERS_FREE: Mapping[str, frozenset[str]] = {
    "quantized": frozenset(
        f"{name}{how}"
        for name in (
            "add", "add_scalar", "batch_norm", "batch_norm1d", "batch_norm2d", "batch_norm3d", "cat", "celu", "clamp",
            "dropout", "elu", "embedding_4bit", "embedding_bag_4bit", "embedding_bag_byte", "embedding_byte",
            "group_norm", "hardswish", "instance_norm", "layer_norm", "leaky_relu", "max_pool1d", "max_pool2d", "mul",
            "mul_scalar", "prelu", "relu6", "sigmoid", "softmax", "threshold",
        )
        for how in ("", "_relu", "_out", "_relu_out")
    ),
    "torchvision": frozenset({"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"}),
}  # fmt: skip
"""Likewise for other libraries."""
