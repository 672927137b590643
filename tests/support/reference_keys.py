"""Names and shapes of the reference's weight files, written out from its documentation rather than from our network."""

from __future__ import annotations

Shape = tuple[int, ...]


def reference_entries(
    D: int,
    num_blocks: int,
    *,
    text: int = 1024,
    rank: int = 256,
    head: int = 128,
    sizes: tuple[int, int, int] = (128, 120, 120),
    extra: bool = True,
) -> dict[str, Shape]:
    """Entries of model.pt without the uncertainty head.

    Args:
        D: width.
        num_blocks: blocks.
        text: width of the text embeddings.
        rank: of the adaLN-LoRA modulation.
        head: channels per head.
        sizes: positions over time, rows, columns.
        extra: whether the extra position embedding is there.
    """
    frames, rows, columns = sizes
    entries: dict[str, Shape] = {
        "net.x_embedder.proj.1.weight": (D, 72),
        "net.pos_embedder.seq": (max(sizes),),
        "net.t_embedder.1.linear_1.weight": (D, D),
        "net.t_embedder.1.linear_2.weight": (3 * D, D),
        "net.affline_norm.weight": (D,),
        "net.final_layer.linear.weight": (64, D),
        "net.final_layer.adaLN_modulation.1.weight": (rank, D),
        "net.final_layer.adaLN_modulation.2.weight": (2 * D, rank),
    }
    if extra:
        entries["net.extra_pos_embedder.pos_emb_t"] = (frames, D)
        entries["net.extra_pos_embedder.pos_emb_h"] = (rows, D)
        entries["net.extra_pos_embedder.pos_emb_w"] = (columns, D)
    for i in range(num_blocks):
        block = f"net.blocks.block{i}.blocks"
        for j, width in ((0, D), (1, text)):
            attention = f"{block}.{j}.block.attn"
            entries[f"{attention}.to_q.0.weight"] = (D, D)
            entries[f"{attention}.to_q.1.weight"] = (head,)
            entries[f"{attention}.to_k.0.weight"] = (D, width)
            entries[f"{attention}.to_k.1.weight"] = (head,)
            entries[f"{attention}.to_v.0.weight"] = (D, width)
            entries[f"{attention}.to_out.0.weight"] = (D, D)
        entries[f"{block}.2.block.layer1.weight"] = (4 * D, D)
        entries[f"{block}.2.block.layer2.weight"] = (D, 4 * D)
        for j in (0, 1, 2):
            entries[f"{block}.{j}.adaLN_modulation.1.weight"] = (rank, D)
            entries[f"{block}.{j}.adaLN_modulation.2.weight"] = (3 * D, rank)
    return entries


LOGVAR_ENTRIES: dict[str, Shape] = {
    "logvar.0.freqs": (128,),
    "logvar.0.phases": (128,),
    "logvar.1.weight": (1, 128),
}


def extra_state_names(num_blocks: int) -> list[str]:
    """Entries that Transformer Engine adds to files that the reference's trainer saves."""
    return [
        f"net.blocks.block{i}.blocks.{j}.block.attn.attn_op._extra_state"
        for i in range(num_blocks)
        for j in (0, 1)
    ]
