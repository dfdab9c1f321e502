"""What requests may say: OpenAI's fields that mean something here, each with its bounds; any other is refused.

Neither the template nor its variables nor anything of tokenisation can be chosen by a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from burnish.data.reject import ConversionError
from burnish.data.strict import parse_json
from burnish.serving.sampling import Sampling

MAX_MESSAGES = 1_000
MAX_CHOICES = 4
MAX_STOPS = 8
MAX_PROMPTS = 32
MAX_TOP = 20
MAX_TOOLS = 128

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(max_length=512)]


class ApiError(Exception):
    """An answer in OpenAI's error form; `param` is the field it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def as_dict(self) -> dict[str, Any]:
        """The body."""
        kind = "server_error" if self.status >= 500 else KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class StreamOptions(_Strict):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class TextFormat(_Strict):
    """The one response format there is."""

    type: Literal["text"]


class _Request(_Strict):
    """What both kinds of request have in common. `user` is accepted, and neither used nor kept."""

    model: Name
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, ge=0.0, le=1.0, allow_inf_nan=False)
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] = Field(default_factory=list)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False)
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] = Field(
        default_factory=dict, max_length=1_024
    )
    user: Name | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> _Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream: true")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, num_rows: int) -> Sampling:
        """How tokens are chosen; ApiError for a bias on a token that there is none of."""
        bias: dict[int, float] = {}
        for key, value in self.logit_bias.items():
            if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < num_rows):
                raise ApiError(
                    400, f"logit_bias: {key[:20]!r} is no token id of the model", param="logit_bias"
                )
            bias[int(key)] = value
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=bias,
        )


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP)
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none"] = "auto"
    parallel_tool_calls: Literal[True] = True
    response_format: TextFormat | None = None
    store: Literal[False] = False

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens is the old name of max_completion_tokens; give one of them")
        return self

    @property
    def limit(self) -> int | None:
        """The most tokens an answer may have."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_top(self) -> int | None:
        """How many likeliest tokens to name; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Request):
    """POST /v1/completions. Token ids in `prompt` are fed as they are; text never makes control tokens."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(default=16, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP)
    echo: bool = False
    best_of: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of must be n: nothing is generated and thrown away")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0 is for echo: true")
        if len(self.prompts) > MAX_PROMPTS:
            raise ValueError(f"at most {MAX_PROMPTS} prompts")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list: text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)  # type: ignore[arg-type]  # several prompts, of either kind


Kind = TypeVar("Kind", bound=_Request)


def read_request(kind: type[Kind], body: bytes) -> Kind:
    """A request from its body; ApiError says which field is wrong and why, and repeats no values."""
    try:
        value = parse_json(body)
    except ConversionError as error:
        raise ApiError(400, f"the body is not valid JSON: {error.reason}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    try:
        # Clients write null for what they do not say.
        return kind.model_validate({key: item for key, item in value.items() if item is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:4])
        said = "unknown field" if first["type"] == "extra_forbidden" else str(first["msg"])[:200]
        raise ApiError(
            400, f"{place}: {said}" if place else said, param=place or None, code="invalid_value"
        ) from None
