"""A judge behind an OpenAI-compatible endpoint. Every wait is bounded, and the key is in no text that leaves here."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verifiers.background import Background
from verifiers.judge_config import Endpoint
from verifiers.served import Message, Reply

if TYPE_CHECKING:
    import openai

PATIENCE = 120.0
"""Longest wait in seconds that the client grants a server between two tries."""


class EndpointChat:
    """The `Chat` port over the openai client: its retries and its growing waits are the library's."""

    def __init__(self, config: Endpoint) -> None:
        """ValueError where the key's variable is not set here."""
        self._config, self._key = config, key_of(config)
        self._background = Background("judge-endpoint")
        self._client: openai.AsyncOpenAI | None = None

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float, seconds: float
    ) -> list[Reply]:
        """One reply to each; what the endpoint did not answer within `seconds` is timed out."""
        until = time.monotonic() + min(seconds, self._longest())
        asked = {"max_tokens": max_tokens, "temperature": temperature, **self._config.extra}
        body = {key: value for key, value in asked.items() if value is not None}
        return self._background.run(self._all(conversations, body, until))

    def identity(self) -> str:
        """The address and the model's name; what that server loaded under it, nobody here can know."""
        return f"{self._config.base_url}#{self._config.model}"

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._background.run(self._client.close())
            self._client = None
        self._background.close()

    def _longest(self) -> float:
        """Bound of one request where the caller gives none: a server may also answer drop by drop."""
        return (self._config.retries + 1) * (self._config.timeout + PATIENCE)

    async def _all(
        self, conversations: Sequence[Sequence[Message]], body: Mapping[str, Any], until: float
    ) -> list[Reply]:
        gate = asyncio.Semaphore(self._config.concurrency)
        return list(await asyncio.gather(*(self._one(one, body, until, gate) for one in conversations)))

    async def _one(
        self, conversation: Sequence[Message], body: Mapping[str, Any], until: float, gate: asyncio.Semaphore
    ) -> Reply:
        try:
            async with asyncio.timeout(until - time.monotonic()), gate:
                return reply_of(await self._ask(conversation, body))
        except TimeoutError:
            return Reply(None, "the endpoint did not answer within the batch's time", timed_out=True)
        except Exception as error:  # noqa: BLE001  (boundary: whatever a server sends is a reply or the lack of one)
            return self._failed(error)

    async def _ask(self, conversation: Sequence[Message], body: Mapping[str, Any]) -> Any:
        messages: Any = [{"role": one.role, "content": one.content} for one in conversation]
        return await self._opened().chat.completions.create(
            model=self._config.model, messages=messages, extra_body=dict(body)
        )

    def _opened(self) -> "openai.AsyncOpenAI":
        if self._client is None:
            import openai

            self._client = openai.AsyncOpenAI(
                base_url=self._config.base_url,
                api_key=self._key or "none",
                max_retries=self._config.retries,
                timeout=self._config.timeout,
            )
        return self._client

    def _failed(self, error: Exception) -> Reply:
        """Why there is no answer, without a word of the server's own: it may quote the key."""
        import openai

        own, where = self._config, self._config.base_url
        tries = f"{own.retries + 1} {'try' if own.retries == 0 else 'tries'}"
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                key = f"the key in {own.key_variable}" if own.key_variable else "a request without a key"
                return Reply(
                    None, f"{where} refuses {key} ({error.status_code}); set key_variable to one that it takes"
                )
            case openai.NotFoundError():
                return Reply(None, f"{where} has no model or no path of this name (404): model {own.model!r}")
            case openai.APITimeoutError():
                return Reply(None, f"{where} did not answer within {own.timeout:g} s, {tries}", timed_out=True)
            case openai.APIStatusError():
                return Reply(None, f"{where} answered {error.status_code}, {tries} at most")
            case openai.APIConnectionError():
                return Reply(None, f"{where} cannot be reached, {tries}")
            case _:
                return Reply(None, f"{where} answered with what is no chat completion ({type(error).__name__})")


def key_of(config: Endpoint) -> str:
    """The API key, empty where none is named. ValueError where the variable is not set."""
    if not config.key_variable:
        return ""
    key = os.environ.get(config.key_variable, "").strip()
    if not key:
        raise ValueError(unset(config))
    return key


def unset(config: Endpoint) -> str:
    """What to say of a key's variable that is not set. What is no name may be the key itself and is not told."""
    if not config.key_variable.isidentifier():
        return "key_variable should be the NAME of an environment variable, such as JUDGE_KEY, and never the key"
    return f"the environment variable {config.key_variable} is not set; export it where the scorers run"


def reply_of(completion: Any) -> Reply:
    """The text of a chat completion. Raises where it has not the form of one."""
    choice = completion.choices[0]
    refusal = getattr(choice.message, "refusal", None)
    if refusal or choice.finish_reason == "content_filter":
        return Reply(None, f"the judge declined: {str(refusal or 'content filter')[:200]}", refused=True)
    text = choice.message.content
    if not isinstance(text, str) or not text:
        return Reply(None, "the judge's answer is empty")
    return Reply(text, "the judge was cut off at max_tokens" if choice.finish_reason == "length" else "")
