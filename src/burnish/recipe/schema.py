"""The recipe's keys. A key, its default and its help stand together; docs and JSON schema follow from here.

The smallest recipe:                 and what it means:

    model: marble                    every other key at the default below; `learning_rate` follows `adapter`,
    datasets: data/train.jsonl       `lora_alpha` follows `lora_r`, `num_epochs` gives way to `max_steps`

A key that is null is a key that was not said, save `max_grad_norm`, where null means: no clipping.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from burnish.recipe.choices import (
    Act,
    Adapter,
    BadRow,
    DataFormat,
    DataParallel,
    DType,
    Exhausted,
    MergeInto,
    MixtureRule,
    NonFinite,
    Optimizer,
    Reasoning,
    RopeType,
    Scheduler,
    TooLong,
    Tracker,
    TrainOn,
)
from burnish.recipe.methods import METHODS

SMALL_MODEL = 100_000_000
"""Below so many parameters a model wants a higher rate, the higher the smaller it is."""


def default_rate(adapter: Adapter, num_parameters: int) -> float:
    """The learning rate of a recipe that names none: 2e-5 for full tuning from 100M parameters up, 4e-5 at 50M.

    The tiniest models end at 4e-3. Below 100M the rule is ours, from runs at 0.7M and 4M (docs/lab_notes.md).
    """
    method = METHODS[adapter]
    scale = max(1.0, SMALL_MODEL / num_parameters)
    return min(method.highest_rate, float(f"{method.learning_rate * scale:.2g}"))


RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _without_controls(value: str) -> str:
    """Refuse NUL, escape sequences and line breaks; a no-break space in a file name is odd, and a name."""
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") for char in value):
        raise ValueError("names and paths have no control characters")
    return value


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, AfterValidator(_without_controls)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Keys(BaseModel):
    """What the recipe and its parts have in common: nothing extra, nothing changed later, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `num_epochs: true`, which Python would read as 1."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and bool not in (field.annotation, *get_args(field.annotation)):
            raise ValueError("true and false are for switches")
        return value


class DatasetSource(Keys):
    """One source of rows: a file, a glob, a folder or a name on the Hugging Face hub."""

    path: Name = Field(
        description="File, glob, folder, or `owner/name` on the hub. JSONL, JSON, Parquet, Arrow."
    )
    split: Name = Field(default="train", description="Which split of a hub dataset to read; files have none.")
    format: DataFormat = Field(
        default=DataFormat.AUTO, description="Layout of the records; `auto` looks and says why."
    )
    weight: float = Field(default=1.0, gt=0, description="Loss weight of every graded token of this source.")
    max_samples: Positive | None = Field(
        default=None, description="Read at most this many rows, in file order."
    )
    name: Name | None = Field(default=None, description="What reports call this source; null: its path.")
    mix: float = Field(
        default=1.0, gt=0, description="Under `mixture: weights`: how much of its group this source is."
    )
    epochs: float = Field(
        default=1.0, gt=0, description="How often an epoch goes through this source before it is used up."
    )
    cap: Positive | None = Field(
        default=None, description="An epoch takes at most this many rows of this source, others each time."
    )
    group: Name | None = Field(
        default=None, description="Category: shares are dealt to groups first, then within each."
    )
    prompt: tuple[Text, ...] = Field(
        default=(),
        description="For raw records: what the user says, a Jinja text over the columns, or several phrasings.",
    )
    response: Text | None = Field(
        default=None,
        description="For raw records: what the model is to answer, a Jinja text over the columns.",
    )
    held_out: bool = Field(
        default=False, description="Train on no row of this source: it is a task to be measured on."
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_phrasing(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _phrasing_is_whole(self) -> Self:
        if bool(self.prompt) != (self.response is not None):
            raise ValueError("prompt and response make a row of a raw record together: say both, or neither")
        for text in (*self.prompt, self.response or ""):
            refuse_broken_template(text)
        return self

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or self.path


class Replay(Keys):
    """Plain text of the kind that the base was pre-trained on, mixed in so that it is not forgotten."""

    path: Name = Field(description="File, glob, folder or hub name of plain text; every token is graded.")
    split: Name = Field(default="train", description="Which split of a hub dataset to read; files have none.")
    share: float = Field(gt=0, lt=1, description="Share of all graded tokens that are replayed text.")
    max_length: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Longest piece of the text, in tokens; short pieces reach every update. Null: the recipe's.",
    )

    @property
    def source(self) -> DatasetSource:
        """The text as one more source of rows."""
        return DatasetSource(path=self.path, split=self.split, format=DataFormat.TEXT, name="replay")


class Probe(Keys):
    """A set of texts on which the base is asked before step 0, and the tuned model at each evaluation."""

    path: Name = Field(
        description="`text`, `instructions` (both come with burnish), `samples` (the base's own, drawn at the "
        "start), or a dataset: file, glob, folder, hub name."
    )
    split: Name = Field(default="train", description="Which split of a hub dataset to read; files have none.")
    format: DataFormat = Field(
        default=DataFormat.AUTO, description="Layout of the records; `auto` looks and says why."
    )
    name: Name | None = Field(default=None, description="What reports call this probe; null: its path.")
    rows: Annotated[int, Field(ge=2)] = Field(
        default=64, description="At most so many rows are asked, the first ones."
    )
    budget: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="This probe's own budget; null: that of `forgetting`."
    )

    @property
    def source(self) -> DatasetSource:
        """The texts as a source of rows."""
        return DatasetSource(path=self.path, split=self.split, format=self.format, name=self.name)

    @property
    def is_own(self) -> bool:
        """Whether burnish makes the texts itself."""
        return self.path in OWN_PROBES


OWN_PROBES = ("text", "instructions", "samples")


class Forgetting(Keys):
    """The guard: how much of the base's general ability a run may lose, and what is done when it does."""

    budget: float = Field(
        default=0.02,
        gt=0,
        description="Rise of a probe's loss that is allowed, in nats a token: 0.02 is 2% of its perplexity.",
    )
    act: Act = Field(
        default=Act.WARN,
        description="Once a probe is surely past its budget: say so, raise the share of `replay`, stop, or (`best`) "
        "let `final/` hold the checkpoint with the best held-out loss within the budget.",
    )
    probes: tuple[Probe, ...] = Field(
        default=OWN_PROBES,  # names become probes below
        validate_default=True,
        description="What is measured: a list of names, paths or mappings.",
    )
    kl_to_base: float = Field(
        default=0.0,
        ge=0,
        description="Strength of a second loss term: how far (KL) the base's choice is from the tuned model's, on "
        "graded positions. Needs an adapter: the base is the same model with it off.",
    )

    @field_validator("probes", mode="before")
    @classmethod
    def _list_of_probes(cls, value: Any) -> Any:
        return _one_source(value)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [probe.name or probe.path for probe in self.probes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"probes: {', '.join(twice)} is there twice: give each a name of its own")
        if self.act != Act.WARN and not self.probes:
            raise ValueError(f"act: {self.act} hangs on what probes say, and there are none")
        return self


class RopeScaling(Keys):
    """RoPE for texts longer than the model was trained on: transformers' `rope_parameters`, by their names."""

    rope_type: RopeType = Field(
        description="`linear`, `dynamic`, `yarn`, `llama3`; `default`: `rope_theta` alone."
    )
    factor: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="How many times as many positions; `default` has none."
    )
    original_max_position_embeddings: Positive | None = Field(
        default=None, description="Positions that the base was first trained on; null: those in its config."
    )
    rope_theta: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Another base of the frequencies; null: the model's."
    )
    attention_factor: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="`yarn`: what cosines and sines are multiplied by; null: 0.1 ln(factor) + 1.",
    )
    beta_fast: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="`yarn`: turns in the original length from which a wave is left alone; null: 32.",
    )
    beta_slow: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="`yarn`: turns below which a wave is stretched whole; null: 1."
    )
    low_freq_factor: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="`llama3`: turns below which a wave is stretched whole. Default: 1."
    )
    high_freq_factor: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="`llama3`: turns from which a wave is left alone. Default: 4."
    )

    @model_validator(mode="before")
    @classmethod
    def _llama3_as_published(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("rope_type") == RopeType.LLAMA3:
            return {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **given}
        return given

    @model_validator(mode="after")
    def _values_of_its_type(self) -> Self:
        said = {key for key, value in self if value is not None} - {"rope_type"}
        if lacking := ROPE_KEYS[self.rope_type][0] - said:
            raise ValueError(f"rope_type: {self.rope_type} needs {', '.join(sorted(lacking))}")
        if foreign := said - ROPE_KEYS[self.rope_type][0] - ROPE_KEYS[self.rope_type][1]:
            raise ValueError(f"rope_type: {self.rope_type} has no use for {', '.join(sorted(foreign))}")
        if (self.low_freq_factor or 0) > (self.high_freq_factor or 0):
            raise ValueError("low_freq_factor is below high_freq_factor")
        return self


ROPE_KEYS: dict[RopeType, tuple[frozenset[str], frozenset[str]]] = {
    RopeType.DEFAULT: (frozenset({"rope_theta"}), frozenset()),
    RopeType.LINEAR: (frozenset({"factor"}), frozenset({"rope_theta", "original_max_position_embeddings"})),
    RopeType.DYNAMIC: (frozenset({"factor"}), frozenset({"rope_theta"})),
    RopeType.YARN: (
        frozenset({"factor"}),
        frozenset(
            {"rope_theta", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}
        ),
    ),
    RopeType.LLAMA3: (
        frozenset({"factor"}),
        frozenset({"rope_theta", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}),
    ),
}
"""For each type the keys it needs, and those it may have."""


def refuse_broken_template(text: str) -> None:
    """ValueError where a text is no Jinja."""
    if "{" not in text:
        return
    from jinja2 import Environment, TemplateSyntaxError  # 50 ms that most recipes need not pay

    try:
        Environment(autoescape=False).parse(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"{text!r} is no Jinja text: {error.message}") from None


def _one_source(value: Any) -> Any:
    """Read `a.jsonl`, `{path: a.jsonl}` and `[a.jsonl, {path: b.jsonl}]` as the same kind of list."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


class Recipe(Keys):
    """Everything one supervised fine-tuning run is told; two keys are enough: `model` and `datasets`."""

    # The model
    model: Name = Field(description="Hub id, directory, or `marble` for the embedded base model.")
    tokenizer: Name | None = Field(
        default=None, description="Hub id or directory of the tokenizer; null: the model's."
    )
    chat_template: Name | None = Field(
        default=None,
        description="Path of a Jinja file that replaces the model's own chat template; null: the model's.",
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Variables given to the chat template, such as `enable_thinking`."
    )

    rope_scaling: RopeScaling | None = Field(
        default=None,
        description="RoPE for texts longer than the model's positions, as transformers has it: `{rope_type: yarn, "
        "factor: 4}`; types `linear`, `dynamic`, `yarn`, `llama3`, `default` (another `rope_theta`).",
    )

    # The data
    datasets: tuple[DatasetSource, ...] = Field(
        min_length=1, description="What to train on: one path, one mapping, or a list of either."
    )
    val_set_size: Positive | Share = Field(
        default=0.0, description="Held out of `datasets`: a share below 1, or a number of rows from 1 up."
    )
    val_datasets: tuple[DatasetSource, ...] = Field(
        default=(), description="Datasets that are held out as they are; instead of `val_set_size`."
    )
    mixture: MixtureRule = Field(
        default=MixtureRule.CONCAT,
        description="What an epoch holds of each dataset: all its rows (`concat`, shuffled as one), or shares by "
        "size, by size to the power 1 / `mixture_temperature`, or by `mix`, spread evenly.",
    )
    mixture_temperature: float = Field(
        default=2.0, ge=1, description="Under `mixture: temperature`: 1 is by size, large is equal shares."
    )
    group_mix: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Under `mixture: weights`: the weight of each `group`; others have 1.",
    )
    on_exhausted: Exhausted = Field(
        default=Exhausted.REPEAT,
        description="A dataset is used up: the epoch stops, small ones repeat until all are, or it drops out.",
    )
    replay: Replay | None = Field(
        default=None, description="Plain pre-training text mixed in at a share of the graded tokens."
    )
    train_on: TrainOn = Field(
        default=TrainOn.ALL,
        description="Grade all assistant turns, only the last, or only those with `train: true` or a weight.",
    )
    reasoning: Reasoning = Field(
        default=Reasoning.KEEP,
        description="Rows that think: keep it, close a block that the prompt opens, leave thought out, or refuse.",
    )
    max_length: int = Field(default=2048, ge=2, description="Longest example, in tokens.")
    on_too_long: TooLong = Field(
        default=TooLong.DROP,
        description="An example over `max_length`: drop it, cut its last answer, or stop.",
    )
    on_bad_row: BadRow = Field(
        default=BadRow.ERROR, description="A row that cannot be read: stop, or drop and count it."
    )
    packing: bool = Field(
        default=True, description="Lay examples end to end with no padding; the loss is the same."
    )

    share_prefixes: bool = Field(
        default=True,
        description="Compute what rows of a micro-batch begin with alike once; the loss is the same.",
    )

    # What is trained
    adapter: Adapter = Field(
        default=Adapter.FULL,
        description="Train every weight (`full`), or few beside frozen ones; `q...`: over a base in 4 bits.",
    )
    lora_r: int = Field(default=16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: float = Field(
        default_factory=lambda given: METHODS[given["adapter"]].alpha(given["lora_r"]),
        gt=0,
        description="LoRA scale numerator (scale = alpha / r; `rslora`: alpha / sqrt r). Default: 2 x `lora_r`; "
        "`lora_r` for `pissa` and `lora_xs`; 8 for `rslora`.",
    )
    lora_dropout: Share = Field(
        default=0.0, description="Dropout on the input of the LoRA matrices, as a share."
    )
    lora_target_modules: Name | tuple[Name, ...] = Field(
        default="all-linear",
        description="Layers that get LoRA: `all-linear` (experts too), a list of names, or a regular expression.",
    )
    lora_plus_ratio: float = Field(
        default=1.0,
        ge=1,
        description="LoRA+: how many times the learning rate of the B matrices is that of A.",
    )
    bottleneck_size: Positive = Field(
        default=64, description="Width of the `bottleneck` adapter's inner layer."
    )
    layers_to_transform: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="Numbers of the layers that get an adapter, from 0; empty: all layers."
    )
    modules_to_save: tuple[Name, ...] = Field(
        default=(), description="Modules trained whole beside the adapter, such as `lm_head`; saved with it."
    )
    trainable_token_indices: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="Token ids whose embedding rows are trained beside the adapter; new tokens always are.",
    )
    freeze: tuple[Name, ...] = Field(
        default=(),
        description="Under `full`: parameters that stay as they are, each by a regular expression in their names.",
    )

    merge_into: MergeInto = Field(
        default=MergeInto.BASE,
        description="Of a run in 4 bits: `final/` is the original `base` with the adapter, or that again in `4bit`.",
    )

    # Optimisation
    learning_rate: float = Field(
        default_factory=lambda given: METHODS[given["adapter"]].learning_rate,
        gt=0,
        description="Peak learning rate. Default: 2e-5 (`full`), 2e-4 (`lora` and its kin), 1e-3 (`lora_xs`), "
        "3e-4 (`bottleneck`); more below 100M parameters.",
    )
    lr_scheduler: Scheduler = Field(
        default=Scheduler.COSINE, description="Shape of the learning rate after warm-up."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Updates of linear warm-up; instead of `warmup_ratio`."
    )
    warmup_ratio: Share | None = Field(
        default_factory=lambda given: 0.03 if given["warmup_steps"] is None else None,
        description="Share of all updates that warm up linearly. Default: 0.03 without `warmup_steps`.",
    )
    optimizer: Optimizer = Field(
        default=Optimizer.ADAMW,
        description="The optimiser; `..._8bit` and `paged_...` are bitsandbytes' (on a CPU nothing is paged).",
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay, per unit of learning rate."
    )
    max_grad_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=1.0, description="Gradients longer than this are scaled down to it; null: no clipping."
    )
    on_nonfinite: NonFinite = Field(
        default=NonFinite.STOP,
        description="A loss or gradient that is not finite: stop and name its rows, or skip that batch.",
    )
    max_steps: Positive | None = Field(default=None, description="Updates to make; instead of `num_epochs`.")
    num_epochs: Positive | None = Field(
        default_factory=lambda given: 3 if given["max_steps"] is None else None,
        description="Passes over the training rows. Default: 3 without `max_steps`.",
    )
    global_batch_size: int = Field(default=32, ge=1, description="Rows per update, over all devices.")
    micro_batch_size: Literal["auto"] | Positive = Field(
        default="auto",
        description="Rows per forward pass on one device; changes memory and speed, never the loss.",
    )
    shuffle: bool = Field(
        default=True, description="New row order each epoch, from `seed`; false: file order."
    )

    stages: tuple[dict[str, JsonValue], ...] = Field(
        default=(),
        description="Parts of the run one after another, each this recipe with other data, rate or length.",
    )

    # Precision and memory
    dtype: DType = Field(default=DType.BFLOAT16, description="Precision of the forward and backward passes.")
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default="auto",
        description="Recompute activations: less memory, slower. `auto`: where they would not fit.",
    )
    compile: bool = Field(default=False, description="Compile the model with torch.compile.")

    # Several processes (torchrun, or burnish train --processes N)
    data_parallel: DataParallel = Field(
        default=DataParallel.REPLICATE,
        description="Each rank holds the model (replicate), 1/N of it (shard), or 1/N within each node (hybrid).",
    )
    context_parallel: Positive = Field(
        default=1,
        description="So many ranks share each pack, a part of its tokens each (ring attention): for long texts.",
    )
    cpu_offload: bool = Field(
        default=False,
        description="Keep sharded weights and optimiser state in the host's memory between their uses on a GPU.",
    )

    # Evaluation, saving, stopping
    eval_steps: Positive | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Evaluate every so many updates, or every share of the run; null: ten times.",
    )
    save_steps: Positive | None = Field(
        default=None, description="Also save every so many updates; null: only the best and the last."
    )
    save_total_limit: int = Field(
        default=2, ge=1, description="Checkpoints kept; the best and the last always stay."
    )
    early_stopping_patience: Positive | None = Field(
        default=None,
        description="Stop after so many evaluations without a better held-out loss; null: never.",
    )
    sample_prompts: tuple[Text | tuple[dict[str, JsonValue], ...], ...] = Field(
        default=(), description="Prompts answered at each evaluation: plain strings, or lists of messages."
    )

    sharpening_rows: int = Field(
        default=32,
        ge=0,
        description="Held-out rows of which the probability of each graded token is recorded at each evaluation, "
        "beside the base's; 0: none.",
    )
    forgetting: Forgetting | None = Field(
        default=None,
        description="Guard the base's general ability: probes, a budget, and what is done past it; `{}` for the "
        "defaults.",
    )

    # The run
    output_dir: Name = Field(default="runs", description="Folder that holds the run directories.")
    run_name: Annotated[str, Field(pattern=RUN_NAME)] | None = Field(
        default=None,
        description="Name of the run directory; null: made at the start from model, adapter and time.",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of data order, new weights and dropout.")
    report_to: tuple[Tracker, ...] = Field(default=(), description="Trackers that get a copy of the metrics.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_said(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        stages = given.get("stages")
        if isinstance(stages, (list, tuple)) and stages and given.get("datasets") is None:
            first = stages[0]
            given = {**given, "datasets": first.get("datasets") if isinstance(first, Mapping) else None}
        return {key: value for key, value in given.items() if value is not None or key == "max_grad_norm"}

    @field_validator("datasets", "val_datasets", mode="before")
    @classmethod
    def _list_of_sources(cls, value: Any) -> Any:
        return _one_source(value)

    @field_validator("stages")
    @classmethod
    def _stages_say_what_may_differ(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for number, stage in enumerate(value):
            if wrong := sorted(stage.keys() - STAGE_KEYS - {"name"}):
                raise ValueError(f"stage {number}: {', '.join(wrong)} is the run's, or no key: {MAY_DIFFER}")
        return tuple(
            {
                key: _one_source(said) if key in ("datasets", "val_datasets") else said
                for key, said in each.items()
            }
            for each in value
        )

    @field_validator("report_to", mode="before")
    @classmethod
    def _list_of_trackers(cls, value: Any) -> Any:
        trackers = [value] if isinstance(value, str) else value
        return [] if trackers in (["none"], ("none",)) else trackers

    @field_validator("val_set_size", "eval_steps", mode="before")
    @classmethod
    def _share_or_count(cls, value: Any) -> Any:
        if isinstance(value, float) and value >= 1:
            raise ValueError(
                "a value below 1 is a share and a whole number, written without a point, a count"
            )
        return value

    @field_validator("chat_template_kwargs")
    @classmethod
    def _no_reserved_variable(cls, value: dict[str, Any]) -> dict[str, Any]:
        reserved = sorted(value.keys() & {"messages", "tools", "add_generation_prompt"})
        if reserved:
            raise ValueError(f"burnish itself gives {', '.join(reserved)} to the chat template")
        return value

    @field_validator("sample_prompts")
    @classmethod
    def _messages_have_roles(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for prompt in value:
            if not isinstance(prompt, str) and not all(
                {"role", "content"} <= message.keys() for message in prompt
            ):
                raise ValueError("every message of a sample prompt has a role and a content")
        return value

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        for first, second in (("warmup_ratio", "warmup_steps"), ("num_epochs", "max_steps")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(f"{first} and {second} say the same thing twice: keep one of the two")
        if self.val_set_size and self.val_datasets:
            raise ValueError("val_set_size and val_datasets both name a held-out set: keep one of the two")
        if self.early_stopping_patience and not self.has_held_out:
            raise ValueError("early_stopping_patience needs a held-out set: say val_set_size or val_datasets")
        if self.micro_batch_size != "auto" and self.micro_batch_size > self.global_batch_size:
            raise ValueError("micro_batch_size is a part of global_batch_size and cannot be larger")
        if Tracker.NONE in self.report_to:
            raise ValueError("report_to says none beside other trackers: keep either")
        if all(source.held_out for source in self.datasets):
            raise ValueError("every dataset is held_out: nothing is left to train on")
        for stage in self.stages:
            self._of_stage(stage)
        if self.forgetting is not None:
            self._guard_can_act(self.forgetting)
        return self

    def _guard_can_act(self, guard: Forgetting) -> None:
        """Refuse an act that has nothing to act with."""
        if guard.act == Act.REPLAY and not any(recipe.replay for _, recipe in self.in_stages()):
            raise ValueError(
                "forgetting.act: replay raises the share of `replay`, and there is none: say for example "
                "replay: {path: text.jsonl, share: 0.05}"
            )
        if guard.act == Act.BEST and not self.has_held_out:
            raise ValueError(
                "forgetting.act: best weighs what is gained against what is lost, and the gain is measured on "
                "held-out rows: say val_set_size or val_datasets"
            )
        if guard.kl_to_base and not METHODS[self.adapter].can_be_off:
            raise ValueError(
                f"forgetting.kl_to_base asks the base at every update; with adapter: {self.adapter} that would be a "
                "second model in memory (the size of all weights). With an adapter the base is the same model with "
                "the adapter off: say adapter: lora, or guard by replay instead (act: replay)"
            )

    @property
    def has_held_out(self) -> bool:
        """Whether any rows are kept apart to measure the loss on."""
        apart = self.val_set_size or self.val_datasets or any(source.held_out for source in self.datasets)
        return bool(apart) or any(recipe.has_held_out for _, recipe in self.in_stages() if self.stages)

    @property
    def sources(self) -> tuple[DatasetSource, ...]:
        """All sources in the order in which they are read and numbered: held out first, replay last.

        A row that stands in two sources belongs to the first: what is held out is never trained on.
        """
        trained = [source for source in self.datasets if not source.held_out]
        return (*self.held_out_sources, *trained, *([self.replay.source] if self.replay else []))

    @property
    def held_out_sources(self) -> tuple[DatasetSource, ...]:
        """The sources that are held out whole."""
        return (*self.val_datasets, *(source for source in self.datasets if source.held_out))

    def in_stages(self) -> tuple[tuple[str, Recipe], ...]:
        """The run's stages by name, each as the recipe it is; a recipe without stages is its only one."""
        if not self.stages:
            return (("", self),)
        return tuple(
            (str(stage.get("name", f"stage {number}")), self._of_stage(stage))
            for number, stage in enumerate(self.stages, start=1)
        )

    def _of_stage(self, stage: Mapping[str, Any]) -> Recipe:
        """This recipe with a stage's values in place of its own."""
        said = {key: value for key, value in stage.items() if key != "name" and value is not None}
        own = self.model_dump(mode="json", exclude={"stages", "early_stopping_patience", "forgetting"})
        for pair in EITHER_OR:
            if pair & said.keys():
                own = {key: value for key, value in own.items() if key not in pair}
        try:
            return Recipe.model_validate({**own, **said})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"stages: {stage.get('name', dict(stage))!r}: {where}: {first['msg']}") from None


EITHER_OR = ({"num_epochs", "max_steps"}, {"warmup_ratio", "warmup_steps"}, {"val_set_size", "val_datasets"})
"""Keys that say one thing in two ways; a recipe has one of each pair."""

STAGE_KEYS = frozenset(
    {
        "datasets",
        "val_datasets",
        "val_set_size",
        "mixture",
        "mixture_temperature",
        "group_mix",
        "on_exhausted",
        "replay",
        "train_on",
        "max_length",
        "on_too_long",
        "on_bad_row",
        "learning_rate",
        "lr_scheduler",
        "warmup_steps",
        "warmup_ratio",
        "max_steps",
        "num_epochs",
        "global_batch_size",
        "shuffle",
    }
)
"""The keys in which a stage may differ from its run: what is fed, how fast it is learnt, for how long."""

MAY_DIFFER = f"a stage has a name and may say {', '.join(sorted(STAGE_KEYS))}"
