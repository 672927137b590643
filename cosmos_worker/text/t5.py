"""Embeddings of captions by a T5 encoder in a local folder. Opens no connection.

Source: reference cosmos_predict1/auxiliary/t5_text_encoder.py and scripts/get_t5_embeddings.py: encode with
an attention mask, drop the padding, float16. Differs: batches are padded to their own longest caption, which
the mask makes equal up to rounding, and nothing that is not finite is passed on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.runtime.imports import importing_transformers
from cosmos_worker.runtime.load_errors import LOAD_ERRORS, describe_load_error
from cosmos_worker.storage.file_kinds import refuse_pointers_in
from cosmos_worker.text.tokens import TextTokenizer

logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
)
WEIGHT_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")
"""In the order in which transformers prefers them; only the first kind present is used."""
SAMPLED_ABOVE_BYTES = 1 << 28
SAMPLE_BYTES, NUM_SAMPLES = 1 << 20, 64
TIED_KEYS = frozenset({"encoder.embed_tokens.weight", "shared.weight"})


def read_encoder_config(folder: Path) -> dict[str, Any]:
    """The config.json of a T5 folder.

    Raises:
        CheckpointError: no such folder or file, not JSON, another kind of model, or a Git LFS pointer.
    """
    path = folder / "config.json"
    refuse_pointers_in(folder)
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; give the folder of a T5 encoder (config.json, tokenizer, weights)"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); fetch the encoder again") from None
    kind = config.get("model_type")
    if kind != "t5" or not isinstance(config.get("d_model"), int):
        raise CheckpointError(
            f"{path}: model_type {kind!r} with d_model {config.get('d_model')!r}; expected model_type 't5' "
            "(t5, t5 v1.1, flan-t5, byt5)"
        )
    return config


def _weight_files(folder: Path) -> list[Path]:
    for pattern in WEIGHT_PATTERNS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise CheckpointError(
        f"{folder}: no weights ({' or '.join(WEIGHT_PATTERNS)}); fetch the encoder again"
    )


def update_digest(digest: Any, path: Path) -> None:  # noqa: ANN401 - hashlib's private type
    """Add a file's name, size and content to a digest; of a file above 256 MiB, 64 evenly spaced MiB."""
    size = path.stat().st_size
    digest.update(f"{path.name}:{size}:".encode())
    with path.open("rb") as stream:
        if size <= SAMPLED_ABOVE_BYTES:
            while piece := stream.read(SAMPLE_BYTES):
                digest.update(piece)
            return
        for i in range(NUM_SAMPLES):
            stream.seek((size - SAMPLE_BYTES) * i // (NUM_SAMPLES - 1))
            digest.update(stream.read(SAMPLE_BYTES))


def encoder_identity(folder: Path, max_length: int) -> str:
    """Identity of an encoder: a digest of its files, and the length at which it truncates a caption.

    Files above 256 MiB enter with their size and 64 evenly spaced MiB, so that the 45 GB of T5-11B
    take a second.

    Returns:
        ``<20 hex digits>-<max_length>``, independent of where the folder lies and of files in it
        that transformers does not read.

    Raises:
        CheckpointError: not the folder of a T5 encoder.
    """
    read_encoder_config(folder)
    digest = hashlib.sha256()
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    for path in files + _weight_files(folder):
        update_digest(digest, path)
    return f"{digest.hexdigest()[:20]}-{max_length}"


class T5Encoder:
    """A T5 encoder in float32, as the reference runs it.

    Args:
        folder: config.json, tokenizer files and weights; decoder weights in it are ignored.
        device: where to compute.

    Raises:
        CheckpointError: the folder is not a T5 encoder, or its weights are damaged or incomplete.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.dim: int = read_encoder_config(folder)["d_model"]
        _weight_files(folder)
        # imported here: it takes seconds, for which processes without captions need not wait
        with importing_transformers():
            from transformers import T5EncoderModel
            from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        self.tokenizer = TextTokenizer(folder)
        try:
            loaded: Any = T5EncoderModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except (*LOAD_ERRORS, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: transformers cannot load it ({describe_load_error(error)}); fetch the encoder again"
            ) from None
        model, report = loaded
        missing = sorted(set(report["missing_keys"]) - TIED_KEYS)
        if missing or report.get("mismatched_keys"):
            wrong = missing or sorted(map(str, report["mismatched_keys"]))
            raise CheckpointError(
                f"{folder}: {len(wrong)} weights missing or of another shape, first {wrong[0]}; fetch the encoder again"
            )
        self._model = model.to(device=self.device, dtype=torch.float32).eval()

    @torch.inference_mode()
    def encode(
        self, captions: Sequence[str], max_length: int, batch_size: int = 16
    ) -> list[NDArray[np.float16]]:
        """Hidden states of each caption's tokens.

        Args:
            captions: texts; '' is one token.
            max_length: longer captions lose their tail and keep the end token.
            batch_size: captions per forward pass; captions of like length go together.

        Returns:
            One float16 (L, D) per caption in the order given, L the tokens with the end token.

        Raises:
            DataError: a hidden state that float16 cannot hold, or a text with NUL or half of a surrogate pair.
        """
        tokens = self.tokenizer.encode(captions)
        truncated = sum(len(ids) > max_length for ids in tokens)
        if truncated:
            logger.warning("truncated captions=%d max_length=%d", truncated, max_length)
        end = self.tokenizer.end_id
        tokens = [
            ids if len(ids) <= max_length else [*ids[: max_length - 1], end] for ids in tokens
        ]
        results: dict[int, NDArray[np.float16]] = {}
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            states = self._forward([tokens[i] for i in members])
            for i, state in zip(members, states, strict=True):
                results[i] = _to_float16(state, captions[i], self.folder)
        return [results[i] for i in range(len(tokens))]

    def _forward(self, tokens: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        longest = max(len(ids) for ids in tokens)
        ids_BL = torch.full((len(tokens), longest), self.tokenizer.pad_id)
        mask_BL = torch.zeros(len(tokens), longest, dtype=torch.long)
        for i, ids in enumerate(tokens):
            ids_BL[i, : len(ids)] = torch.tensor(ids)
            mask_BL[i, : len(ids)] = 1
        output = self._model(
            input_ids=ids_BL.to(self.device), attention_mask=mask_BL.to(self.device)
        )
        states_BLD = output.last_hidden_state.float().cpu()
        return [state[: len(ids)] for state, ids in zip(states_BLD, tokens, strict=True)]


def _to_float16(state_LD: torch.Tensor, caption: str, folder: Path) -> NDArray[np.float16]:
    half_LD = state_LD.to(torch.float16)
    if not torch.isfinite(half_LD).all():
        largest = state_LD.abs().max().item()
        raise DataError(
            f"{folder}: embedding of {caption!r} has a value of size {largest:.3g}, float16 holds 65504; "
            "use another encoder or shorten the caption"
        )
    result: NDArray[np.float16] = half_LD.numpy()
    return result
