"""Make Cosmos-Tiny-T5, the text encoder of the quickstart: a real T5 encoder of 0.5 M parameters.

    python make_text_encoder.py            # writes checkpoints/Cosmos-Tiny-T5 beside this file

The folder holds config.json, model.safetensors and a byte tokenizer (ByT5, no vocabulary file), so that
T5EncoderModel and AutoTokenizer of transformers load it as they load google-t5/t5-11b.

How it is trained, from random weights, on sentences of instruction_grammar.py and nothing else:

1. Denoising, half of every batch: one word is replaced by mask tokens, a linear head predicts its bytes.
2. Slot reading, the other half: linear heads of unit-length rows read verb, colour, object and direction from
   every token, from the mean of the tokens and from the end token. This is supervision that google-t5/t5-11b
   never had: it makes the few facts of a sentence linearly readable in all its tokens, which a diffusion model
   of a million parameters needs in order to learn from a few hundred clips. Unit-length rows force these facts to
   be a large part of each vector. The heads are thrown away.

The final norm's weight stays 1, so that every token vector has a root mean square of 1. figures.json beside
the weights says how well probes read colour and direction, compared with the same network untrained.
One thread, one seed: the same versions on the same kind of machine give the same file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from instruction_grammar import COLOURS, DIRECTIONS, SLOTS, Sentence, draw_sentence
from torch import Tensor, nn
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

END, BYTE_OFFSET, MASK = 1, 3, 259
"""Token ids of ByT5: end of text, byte 0, the first sentinel."""
VOCABULARY = 384
SLOT_WEIGHTS = {"verb": 0.25, "colour": 1.0, "object": 0.25, "direction": 1.0}
EXAMPLE_COLOURS = ("red", "green", "blue", "yellow", "purple")
EXAMPLE_DIRECTIONS = ("left", "right", "away", "toward")


def tokenize(text: str) -> list[int]:
    """Tokenize as ByT5Tokenizer does: UTF-8 bytes shifted by three, then the end token."""
    return [byte + BYTE_OFFSET for byte in text.encode()] + [END]


def collate(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) padded with 0, and the mask of real tokens (B, L)."""
    longest = max(len(row) for row in rows)
    ids_BL = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids_BL, (ids_BL != 0).long()


def mask_word(text: str, rng: random.Random) -> tuple[list[int], list[int]]:
    """Token ids with one word masked, and the ids to predict (-100 elsewhere)."""
    words = text.split(" ")
    chosen = rng.randrange(len(words))
    start = len(" ".join(words[:chosen]).encode()) + (chosen > 0)
    stop = start + len(words[chosen].encode())
    ids = tokenize(text)
    labels = [ids[i] if start <= i < stop else -100 for i in range(len(ids))]
    return [MASK if start <= i < stop else ids[i] for i in range(len(ids))], labels


class Heads(nn.Module):
    """Classifiers that the training puts on the hidden states; they are not part of the result."""

    def __init__(self, dim: int) -> None:
        """Random heads for states of width `dim`."""
        super().__init__()
        self.bytes = nn.Linear(dim, VOCABULARY)
        self.slots = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(len(values), dim)) for name, values in SLOTS.items()}
        )

    def slot_loss(self, states_BLD: Tensor, mask_BL: Tensor, slots_BN: Tensor) -> Tensor:
        """Mean over tokens, mean vector and end token of the weighted slot losses."""
        mask_BL1 = mask_BL[..., None].float()
        mean_BD = (states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
        end_BD = states_BLD[torch.arange(len(mask_BL)), mask_BL.sum(1) - 1]
        owner = mask_BL.nonzero()[:, 0]
        total = torch.zeros(())
        for i, (name, rows) in enumerate(self.slots.items()):
            unit = F.normalize(rows, dim=1)
            target_B = slots_BN[:, i]
            token = F.cross_entropy(states_BLD[mask_BL.bool()] @ unit.T, target_B[owner])
            pooled = F.cross_entropy(mean_BD @ unit.T, target_B)
            end = F.cross_entropy(end_BD @ unit.T, target_B)
            total = total + SLOT_WEIGHTS[name] * (token + pooled + end) / 3
        return total


def build_encoder(seed: int) -> T5EncoderModel:
    """A T5 encoder with random weights and a final norm whose weight stays 1."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=64,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        decoder_start_token_id=0,
        tokenizer_class="ByT5Tokenizer",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(config)
    encoder.encoder.final_layer_norm.weight.requires_grad_(False)
    return encoder


def train(
    encoder: T5EncoderModel, steps: int, batch_size: int, learning_rate: float, seed: int
) -> dict[str, float]:
    """Train in place; returns the last losses, averaged over 50 steps."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(encoder.config.d_model)
    parameters = [
        p for p in itertools.chain(encoder.parameters(), heads.parameters()) if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda n: min((n + 1) / warmup, 0.5 * (1 + math.cos(math.pi * n / steps)) + 0.01),
    )
    started, recent = time.monotonic(), {"denoising": 0.0, "slots": 0.0}
    encoder.train()
    for step in range(1, steps + 1):
        masked = [mask_word(draw_sentence(rng).text, rng) for _ in range(batch_size // 2)]
        plain = [draw_sentence(rng) for _ in range(batch_size // 2)]
        denoising = denoising_loss(encoder, heads, masked)
        slots = reading_loss(encoder, heads, plain)
        optimizer.zero_grad(set_to_none=True)
        (denoising + slots).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        share = 1 / min(step, 50)
        for name, loss in (("denoising", denoising), ("slots", slots)):
            recent[name] += share * (loss.item() - recent[name])
        if step % 50 == 0:
            rate = (time.monotonic() - started) / step
            print(
                f"step={step}/{steps} denoising={recent['denoising']:.3f} "
                f"slots={recent['slots']:.3f} s/step={rate:.3f}",
                flush=True,
            )
    encoder.eval()
    return recent


def denoising_loss(
    encoder: T5EncoderModel, heads: Heads, masked: list[tuple[list[int], list[int]]]
) -> Tensor:
    """Cross-entropy of the bytes of the masked words, nats per byte."""
    ids_BL, mask_BL = collate([ids for ids, _ in masked])
    labels_BL = torch.full_like(ids_BL, -100)
    for i, (_, labels) in enumerate(masked):
        labels_BL[i, : len(labels)] = torch.tensor(labels)
    states_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    chosen = labels_BL != -100
    return F.cross_entropy(heads.bytes(states_BLD[chosen]), labels_BL[chosen])


def reading_loss(encoder: T5EncoderModel, heads: Heads, sentences: list[Sentence]) -> Tensor:
    """Slot loss of whole sentences."""
    ids_BL, mask_BL = collate([tokenize(sentence.text) for sentence in sentences])
    states_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    slots_BN = torch.tensor([sentence.slots for sentence in sentences])
    return heads.slot_loss(states_BLD, mask_BL, slots_BN)


# --- figures ---------------------------------------------------------------------------------


@torch.inference_mode()
def captions_states(encoder: T5EncoderModel, captions: list[str]) -> list[Tensor]:
    """Hidden states (L, D) of each caption."""
    ids_BL, mask_BL = collate([tokenize(caption) for caption in captions])
    states_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    return [state[: int(n)] for state, n in zip(states_BLD, mask_BL.sum(1), strict=True)]


VIEWS = {
    "mean": lambda state_LD: state_LD.mean(0),
    "end_token": lambda state_LD: state_LD[-1],
    "first_token": lambda state_LD: state_LD[0],
    "token_of_the": lambda state_LD: state_LD[5],
}
"""Vectors of a caption that probes are trained on; the last is the t of 'the' in 'push the …'."""


def probe_accuracy(train_ND: Tensor, labels_N: Tensor, test_MD: Tensor, labels_M: Tensor) -> float:
    """Accuracy on the test vectors of logistic regression (L2 1e-2) trained on the others."""
    with torch.enable_grad():
        weight = torch.zeros(
            int(labels_N.max()) + 1, train_ND.shape[1], dtype=torch.double, requires_grad=True
        )
        centre_D = train_ND.mean(0).double()
        optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = (train_ND.double() - centre_D) @ weight.T
            loss = F.cross_entropy(logits, labels_N) + 1e-2 * weight.square().sum() / 2
            loss.backward()
            return loss

        optimizer.step(closure)
    guess_M = ((test_MD.double() - centre_D) @ weight.T).argmax(1)
    return (guess_M == labels_M).double().mean().item()


def probe_figures(
    encoder: T5EncoderModel, colours: tuple[str, ...], directions: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Accuracy of probes on 'push the COLOUR cube DIRECTION' for combinations that they have not seen.

    Four-fold: each fold holds out every fourth combination, so that a probe sees each colour with three
    quarters of the directions and is tested on it with the others.
    """
    pairs = list(itertools.product(range(len(colours)), range(len(directions))))
    states = captions_states(
        encoder, [f"push the {colours[c]} cube {directions[d]}" for c, d in pairs]
    )
    folds_N = torch.tensor([(c + d) % 4 for c, d in pairs])
    figures: dict[str, dict[str, float]] = {}
    for view, take in VIEWS.items():
        vectors_ND = torch.stack([take(state) for state in states])
        for slot, name in enumerate(("colour", "direction")):
            labels_N = torch.tensor([pair[slot] for pair in pairs])
            total = 0.0
            for fold in range(4):
                held = folds_N == fold
                total += float(held.sum()) * probe_accuracy(
                    vectors_ND[~held], labels_N[~held], vectors_ND[held], labels_N[held]
                )
            figures.setdefault(view, {})[name] = round(total / len(pairs), 4)
    return figures


def spread_figures(encoder: T5EncoderModel) -> dict[str, dict[str, float]]:
    """Parts of a caption's vectors: one common to all captions, and those that colour and direction add.

    For the 20 captions of the example, per view: rms of the part common to all captions, rms of the
    difference from it, and the share of the differences' variance that colour and direction explain
    additively.
    """
    pairs = list(itertools.product(EXAMPLE_COLOURS, EXAMPLE_DIRECTIONS))
    states = captions_states(encoder, [f"push the {c} cube {d}" for c, d in pairs])
    grid = (len(EXAMPLE_COLOURS), len(EXAMPLE_DIRECTIONS), -1)
    figures = {}
    for view, take in VIEWS.items():
        x_CDK = torch.stack([take(state) for state in states]).double().view(grid)
        common_K = x_CDK.mean((0, 1))
        delta_CDK = x_CDK - common_K
        colour_CK, direction_DK = delta_CDK.mean(1), delta_CDK.mean(0)
        total = delta_CDK.square().mean()
        figures[view] = {
            "common_rms": round(common_K.square().mean().sqrt().item(), 4),
            "difference_rms": round(total.sqrt().item(), 4),
            "colour_share": round((colour_CK.square().mean() / total).item(), 4),
            "direction_share": round((direction_DK.square().mean() / total).item(), 4),
        }
    return figures


def all_figures(encoder: T5EncoderModel) -> dict[str, object]:
    """Everything that is measured of an encoder."""
    return {
        "probes_example_5_colours_4_directions": probe_figures(
            encoder, EXAMPLE_COLOURS, EXAMPLE_DIRECTIONS
        ),
        "probes_12_colours_12_directions": probe_figures(encoder, COLOURS, tuple(DIRECTIONS)),
        "spread": spread_figures(encoder),
    }


def main() -> None:
    """Train, save and measure."""
    parser = argparse.ArgumentParser(description="Train the tiny T5 encoder of the quickstart.")
    default = Path(__file__).parent / "checkpoints" / "Cosmos-Tiny-T5"
    parser.add_argument("--output", type=Path, default=default, help="folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and sentences")
    options = parser.parse_args()
    torch.set_num_threads(1)

    encoder = build_encoder(options.seed)
    untrained = all_figures(encoder.eval())
    started = time.monotonic()
    losses = train(encoder, options.steps, options.batch_size, options.learning_rate, options.seed)
    seconds = time.monotonic() - started
    encoder.save_pretrained(options.output)
    (options.output / "model.safetensors").chmod(0o644)
    ByT5Tokenizer().save_pretrained(options.output)
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    figures = {
        "settings": settings | {"parameters": encoder.num_parameters(), "torch": torch.__version__},
        "seconds": round(seconds),
        "losses": {name: round(loss, 4) for name, loss in losses.items()},
        "trained": all_figures(encoder),
        "untrained": untrained,
    }
    text = json.dumps(figures, indent=1)
    (options.output / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
