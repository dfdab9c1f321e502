"""The models that a server offers: one base in memory, and adapters on it, each asked as it was trained.

    burnish serve runs/poet runs/pirate        ids: "marble" (the base of both), "poet", "pirate"
    burnish serve runs/whole                   a run that trained every weight, or a bottleneck: the base, id "whole"

Every model id brings its own tokenizer, template and stop ids. Which adapter computes is switched between steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.adapters.bottleneck import JSON as BOTTLENECK_JSON
from burnish.adapters.bottleneck import load_bottleneck
from burnish.errors import DataError, UsageError
from burnish.models.assistant import finished
from burnish.models.forward import unwrapped
from burnish.models.generate import num_positions
from burnish.models.load import add_token_rows, default_device, load_model, stop_ids_of
from burnish.models.locate import locate, read_json
from burnish.models.rope import read_record
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.recipe.load import load_recipe
from burnish.serving.spelling import Vocabulary

WEIGHTS = "adapter_model.safetensors"
NEW_ROWS = ".trainable_tokens_delta"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's parts lie; without an adapter it is its base."""

    id: str
    base: str
    adapter: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One model id. `adapter` is its name inside the wrapper; `num_rows` is how many ids it may answer with."""

    id: str
    adapter: str | None
    base: str
    tokenizer: ChatTokenizer
    vocabulary: Vocabulary
    stop_ids: frozenset[int]
    num_rows: int


class Roster:
    """The loaded weights and the model ids served from them."""

    def __init__(self, model: nn.Module, served: Sequence[Served]) -> None:
        self.model = model
        self.by_id = {one.id: one for one in served}
        self._active: str | None = None
        if isinstance(model, PeftModel):
            model.base_model.disable_adapter_layers()

    @property
    def inner(self) -> PreTrainedModel:
        """The transformers model inside any wrapper."""
        return unwrapped(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = self.inner.device
        return found

    @property
    def num_positions(self) -> int | None:
        """The most tokens a sequence may have, where the model says."""
        return num_positions(self.inner.config)

    def activate(self, served: Served) -> None:
        """From here on the weights are those of this model id."""
        if served.adapter == self._active:
            return
        assert isinstance(self.model, PeftModel)
        if served.adapter is None:
            self.model.base_model.disable_adapter_layers()
        else:
            if self._active is None:
                self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(served.adapter, inference_mode=True)
        self._active = served.adapter


def place_of(name: str) -> Place:
    """What a command line names: a run (its adapter on its base, or its whole model), an adapter, or a model."""
    path = Path(name).expanduser()
    if (path / "resolved.yaml").is_file():
        final = Path(finished(name))
        for adapter in (path / "adapter", final / "adapter"):
            if (adapter / "adapter_config.json").is_file():
                recipe = load_recipe(path / "resolved.yaml").recipe
                return Place(path.resolve().name, recipe.model, adapter)
        return Place(path.resolve().name, str(final))
    if (path / "adapter_config.json").is_file():
        base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
        if not isinstance(base, str):
            raise DataError(
                f"{path / 'adapter_config.json'}: base_model_name_or_path {base!r}",
                rule="an adapter says which base it is for",
                remedy="serve the run directory, or write the base's place there",
            )
        return Place(path.resolve().name, base, path)
    return Place(path.resolve().name if path.is_dir() else name, name)


def load_roster(names: Sequence[str], *, dtype: str = "auto") -> Roster:
    """Load what is named; UsageError where it does not share one base or two would have one id.

    `dtype` "auto" is fp32 on a CPU: in 16 bits many greedy answers hang on ties between logits. On other devices it is
    the weights' own.
    """
    places = [place_of(name) for name in names]
    base = _only_base(places)
    whole = next((place for place in places if place.adapter is None), None)
    base_id = whole.id if whole else place_of(base).id
    adapted = [place for place in places if place.adapter is not None]
    ids = [base_id, *(place.id for place in adapted)]
    if len(set(ids)) < len(ids):
        raise UsageError(
            f"two models would have the id {max(ids, key=ids.count)!r} (of {', '.join(ids)})",
            rule="a model id names one model; it is the last part of its directory's path",
            remedy="rename one of the directories",
        )
    _refuse_scaled(adapted)
    exact = dtype == "auto" and default_device().type == "cpu"
    precision = torch.float32 if exact else None if dtype == "auto" else getattr(torch, dtype)
    model: Any = load_model(base, dtype=precision, device=torch.device("cpu"))
    if (locate(base) / BOTTLENECK_JSON).is_file():
        _refuse_company(base, adapted)
        model = load_bottleneck(model, locate(base))
    base_rows = model.get_input_embeddings().weight.shape[0]
    chats = {base_id: load_chat_tokenizer(base, chat=False)}
    chats |= {place.id: _chat_of(place) for place in adapted}
    longest = max(map(len, chats.values()))
    add_token_rows(model, longest, range(base_rows, longest))
    declared = stop_ids_of(model, chats[base_id].tokenizer)
    tables = _tables(model, base_rows)
    for number, place in enumerate(adapted):
        model = _put_on(model, place, f"a{number}", tables)
    model = model.to(default_device()).eval().requires_grad_(False)
    served = [_served(base_id, None, base, chats[base_id], base_rows, declared)]
    for number, place in enumerate(adapted):
        chat = chats[place.id]
        served.append(
            _served(place.id, f"a{number}", base_id, chat, max(base_rows, len(chat)), chat.stop_ids)
        )
    return Roster(model, served)


def _refuse_scaled(adapted: Sequence[Place]) -> None:
    """Positions are the base's, and all that is served shares it."""
    for place in adapted:
        if place.adapter is not None and read_record(locate(str(place.adapter))) is not None:
            raise UsageError(
                f"{place.adapter} was trained with rope_scaling",
                rule="a base and the adapters that are served on it have the same positions",
                remedy="serve the run's final/, which has its own: burnish serve RUN/final",
            )


def _refuse_company(base: str, adapted: Sequence[Place]) -> None:
    """A bottleneck is part of the weights that it lies beside: an adapter of the same base never had it below."""
    if adapted:
        raise UsageError(
            f"{base} has a bottleneck, and {adapted[0].id} goes on the base without it",
            rule="a bottleneck cannot be switched off between requests",
            remedy="start one server for each, on ports of their own",
        )


def _served(
    name: str, adapter: str | None, base: str, chat: ChatTokenizer, num_rows: int, stops: Sequence[int]
) -> Served:
    ends = frozenset([*stops, *chat.stop_ids])
    return Served(name, adapter, base, chat, Vocabulary(chat.tokenizer), ends, num_rows)


def _only_base(places: Sequence[Place]) -> str:
    bases = {str(locate(place.base).resolve()): place.base for place in places}
    if len(bases) != 1:
        raise UsageError(
            f"the models have {len(bases)} bases: {', '.join(bases.values())}",
            rule="one server holds one base in memory; adapters of it are served beside it",
            remedy="start one server for each base, on ports of their own",
        )
    return next(iter(bases.values()))


def _chat_of(place: Place) -> ChatTokenizer:
    """The tokenizer that lies beside an adapter was trained with it."""
    brings = place.adapter is not None and (place.adapter / "tokenizer.json").is_file()
    return load_chat_tokenizer(str(place.adapter) if brings else place.base, chat=False)


def _put_on(model: Any, place: Place, name: str, tables: Mapping[str, Tensor]) -> PeftModel:
    """The model with one more adapter, every tensor of its file in its place; DataError where one is left over."""
    assert place.adapter is not None
    directory = locate(str(place.adapter))
    if not (directory / WEIGHTS).is_file():
        raise DataError(
            f"{directory}: no {WEIGHTS}",
            rule="weights are read from safetensors only, for a pickle can run code",
            remedy="save the adapter again with save_pretrained(..., safe_serialization=True)",
        )
    try:
        tensors = load_file(directory / WEIGHTS)
        config = PeftConfig.from_pretrained(str(directory))
        config.inference_mode = True
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = PeftModel(model, config, adapter_name=name)
        wanted = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
        given = {key: tensor for key, tensor in tensors.items() if key in wanted}
        set_peft_model_state_dict(model, given, adapter_name=name)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise DataError(
            f"{directory}: {error}",
            rule=f"an adapter fits its base, here {place.base}",
            remedy="serve the adapter with the base that it was trained on",
        ) from error
    left = {
        key
        for key in tensors.keys() - wanted
        if not (_is_base_table(tensors[key], key, tables, directory) or _is_tied(tensors[key], key, given))
    }
    odd = sorted(left | wanted - tensors.keys())
    if odd:
        raise DataError(
            f"{directory}: {len(odd)} tensors have no place in the model, or the model's no tensor ({odd[0]} first)",
            rule="an adapter whose names do not match would be loaded and do nothing",
            remedy="serve it on the base that it was trained on, or export the run again",
        )
    return model


def _is_base_table(tensor: Tensor, key: str, tables: Mapping[str, Tensor], directory: Path) -> bool:
    """Whether a tensor is the copy of the base's vocabulary that PEFT writes where rows were added.

    It is not loaded: it would take the place of the base's own, for every model id.
    """
    name = key.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".base_layer")
    own = tables.get(name.removesuffix(".token_adapter"))
    if own is None:
        return False
    shared = min(len(own), len(tensor))
    if not torch.allclose(tensor[:shared].float(), own[:shared].float(), rtol=1e-2, atol=1e-4):
        raise DataError(
            f"{directory}: {key} is not the base's",
            rule="models that are served together share one base, its vocabulary too",
            remedy="serve the merged model by itself: burnish serve RUN/final",
        )
    return True


def _is_tied(tensor: Tensor, key: str, given: Mapping[str, Tensor]) -> bool:
    """Whether these are the new tokens' rows once more, under the name of a head that is tied to the embedding."""
    rows = (other for name, other in given.items() if name.endswith(NEW_ROWS))
    return key.endswith(NEW_ROWS) and any(torch.equal(tensor, other) for other in rows)


def _tables(model: PreTrainedModel, num_rows: int) -> dict[str, Tensor]:
    """The rows that the base brought, of its embedding and its head, by module name."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {
        name: module.weight.detach()[:num_rows]
        for name, module in model.named_modules()
        if any(module is end for end in ends)
    }
