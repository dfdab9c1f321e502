"""The closed lists of words that a recipe's keys take; each is an enum, so code can `match` on it."""

from __future__ import annotations

from enum import StrEnum


class Adapter(StrEnum):
    """Which weights move, and how; `recipe.methods.METHODS` says of each what it does."""

    FULL = "full"
    LORA = "lora"
    DORA = "dora"
    RSLORA = "rslora"
    PISSA = "pissa"
    LORA_XS = "lora_xs"
    QLORA = "qlora"
    QDORA = "qdora"
    BOTTLENECK = "bottleneck"


class DataFormat(StrEnum):
    """How the records of a dataset are laid out."""

    AUTO = "auto"
    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PROMPT_COMPLETION = "prompt-completion"
    TEXT = "text"


class TrainOn(StrEnum):
    """Which assistant turns of a conversation are graded."""

    ALL = "all"
    LAST = "last"
    NONE_BUT_FLAGGED = "none-but-flagged"


class Reasoning(StrEnum):
    """What is done with reasoning, and where the generation prompt and a row disagree about it."""

    KEEP = "keep"
    EMPTY = "empty"
    OFF = "off"
    REFUSE = "refuse"


class TooLong(StrEnum):
    """What happens to an example longer than `max_length`."""

    DROP = "drop"
    CUT_ANSWER = "cut_answer"
    ERROR = "error"


class NonFinite(StrEnum):
    """What to do when a loss or a gradient is not a finite number."""

    STOP = "stop"
    SKIP_BATCH = "skip_batch"


class BadRow(StrEnum):
    """What happens to a row that cannot be read."""

    ERROR = "error"
    DROP = "drop"


class MixtureRule(StrEnum):
    """What decides how much of an epoch each dataset is."""

    CONCAT = "concat"
    PROPORTIONAL = "proportional"
    TEMPERATURE = "temperature"
    WEIGHTS = "weights"


class Exhausted(StrEnum):
    """What happens where a mixture's shares would want more rows of a dataset than it has."""

    STOP = "stop"
    REPEAT = "repeat"
    DROP = "drop"


class Act(StrEnum):
    """What the forgetting guard does once a probe is surely past its budget."""

    WARN = "warn"
    REPLAY = "replay"
    STOP = "stop"
    BEST = "best"


class Scheduler(StrEnum):
    """How the learning rate moves after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    WSD = "wsd"


class Optimizer(StrEnum):
    """Which optimiser turns gradients into updates."""

    ADAMW = "adamw"
    SGD = "sgd"
    ADAFACTOR = "adafactor"
    MUON = "muon"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_32BIT = "paged_adamw_32bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"


class MergeInto(StrEnum):
    """What the adapter of a base in 4 bits is merged into."""

    BASE = "base"
    FOUR_BITS = "4bit"


class DType(StrEnum):
    """In what precision the forward and backward passes run."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class RopeType(StrEnum):
    """How RoPE's frequencies are changed for longer texts; transformers' names."""

    DEFAULT = "default"
    LINEAR = "linear"
    DYNAMIC = "dynamic"
    YARN = "yarn"
    LLAMA3 = "llama3"


class DataParallel(StrEnum):
    """What the ranks of a run share out, besides the packs of an update."""

    REPLICATE = "replicate"
    SHARD = "shard"
    HYBRID = "hybrid"


class Tracker(StrEnum):
    """Where metrics are copied to, besides the run directory."""

    NONE = "none"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    TRACKIO = "trackio"
