"""Every path the gateway serves, in one table: a further API is one more dialect file and one more row."""

import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from twinfer.gateway.dialects.bedrock_converse import converse, converse_stream
from twinfer.gateway.dialects.bedrock_count import count_tokens
from twinfer.gateway.dialects.bedrock_invoke import invoke_model, invoke_model_with_response_stream
from twinfer.gateway.dialects.bedrock_models import (
    get_foundation_model,
    get_foundation_model_availability,
    list_foundation_models,
)
from twinfer.gateway.dialects.bedrock_profiles import get_inference_profile, list_inference_profiles
from twinfer.gateway.dialects.openai_chat import chat_completions
from twinfer.gateway.dialects.openai_completions import completions
from twinfer.gateway.dialects.openai_models import get_model, list_models
from twinfer.gateway.dialects.openai_responses import responses, stored_response
from twinfer.gateway.errors import ErrorResponse, UnknownOperation, WrongMethod, bedrock_error, openai_error
from twinfer.gateway.exchange import Operation
from twinfer.gateway.operations import healthz, metrics, readyz


@dataclass(frozen=True)
class Row:
    """One endpoint.

    Attributes:
        name: of the operation, for metrics and logs.
        path: matched against the raw path, because boto3 sends slashes and colons of a model id percent-encoded;
            ``{model}`` takes as much as it can.
        error: how this API words errors.
        action: what a policy must allow; empty for what is open to everybody.
    """

    name: str
    method: str
    path: str
    operation: Operation
    error: ErrorResponse
    action: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a whole raw path must look like."""
        return re.compile(re.escape(self.path).replace(re.escape("{model}"), "(?P<model>.+)"))


INVOKE, INVOKE_STREAM = "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"
INFER = "bedrock-mantle:CreateInference"
TABLE = (
    Row("Converse", "POST", "/model/{model}/converse", converse, bedrock_error, INVOKE),
    Row("ConverseStream", "POST", "/model/{model}/converse-stream", converse_stream, bedrock_error, INVOKE_STREAM),
    Row("InvokeModel", "POST", "/model/{model}/invoke", invoke_model, bedrock_error, INVOKE),
    Row(
        "InvokeModelWithResponseStream",
        "POST",
        "/model/{model}/invoke-with-response-stream",
        invoke_model_with_response_stream,
        bedrock_error,
        INVOKE_STREAM,
    ),
    Row("CountTokens", "POST", "/model/{model}/count-tokens", count_tokens, bedrock_error, "bedrock:CountTokens"),
    Row(
        "ListFoundationModels",
        "GET",
        "/foundation-models",
        list_foundation_models,
        bedrock_error,
        "bedrock:ListFoundationModels",
    ),
    Row(
        "GetFoundationModel",
        "GET",
        "/foundation-models/{model}",
        get_foundation_model,
        bedrock_error,
        "bedrock:GetFoundationModel",
    ),
    Row(
        "GetFoundationModelAvailability",
        "GET",
        "/foundation-model-availability/{model}",
        get_foundation_model_availability,
        bedrock_error,
        "bedrock:GetFoundationModelAvailability",
    ),
    Row(
        "ListInferenceProfiles",
        "GET",
        "/inference-profiles",
        list_inference_profiles,
        bedrock_error,
        "bedrock:ListInferenceProfiles",
    ),
    Row(
        "GetInferenceProfile",
        "GET",
        "/inference-profiles/{model}",
        get_inference_profile,
        bedrock_error,
        "bedrock:GetInferenceProfile",
    ),
    Row("ChatCompletions", "POST", "/v1/chat/completions", chat_completions, openai_error, INFER),
    Row("ChatCompletions", "POST", "/openai/v1/chat/completions", chat_completions, openai_error, INFER),
    Row("Completions", "POST", "/v1/completions", completions, openai_error, INFER),
    Row("Completions", "POST", "/openai/v1/completions", completions, openai_error, INFER),
    Row("Responses", "POST", "/v1/responses", responses, openai_error, INFER),
    Row("Responses", "POST", "/openai/v1/responses", responses, openai_error, INFER),
    Row("GetResponse", "GET", "/v1/responses/{model}", stored_response, openai_error, "bedrock-mantle:GetResponse"),
    Row(
        "GetResponse",
        "GET",
        "/openai/v1/responses/{model}",
        stored_response,
        openai_error,
        "bedrock-mantle:GetResponse",
    ),
    Row(
        "DeleteResponse",
        "DELETE",
        "/v1/responses/{model}",
        stored_response,
        openai_error,
        "bedrock-mantle:DeleteResponse",
    ),
    Row(
        "DeleteResponse",
        "DELETE",
        "/openai/v1/responses/{model}",
        stored_response,
        openai_error,
        "bedrock-mantle:DeleteResponse",
    ),
    Row("ListModels", "GET", "/v1/models", list_models, openai_error, "bedrock-mantle:ListModels"),
    Row("ListModels", "GET", "/openai/v1/models", list_models, openai_error, "bedrock-mantle:ListModels"),
    Row("GetModel", "GET", "/v1/models/{model}", get_model, openai_error, "bedrock-mantle:GetModel"),
    Row("GetModel", "GET", "/openai/v1/models/{model}", get_model, openai_error, "bedrock-mantle:GetModel"),
    Row("Health", "GET", "/healthz", healthz, bedrock_error, ""),
    Row("Ready", "GET", "/readyz", readyz, bedrock_error, ""),
    Row("Metrics", "GET", "/metrics", metrics, bedrock_error, "twinfer:GetMetrics"),
)


def match(method: str, raw_path: str) -> tuple[Row, str]:
    """The row for a request, and the model id in its path, decoded.

    Raises:
        UnknownOperation: no row has such a path.
        WrongMethod: some have, but not with this method.
    """
    allowed: list[str] = []
    for row in TABLE:
        found = row.pattern.fullmatch(raw_path)
        if found is None:
            continue
        if row.method == method:
            return row, unquote(found.groupdict().get("model", ""))
        allowed.append(row.method)
    if allowed:
        raise WrongMethod(f"{method} is not supported for {raw_path}; use {' or '.join(allowed)}.", allowed)
    raise UnknownOperation(f"There is no operation at {method} {raw_path}.")


def error_for(raw_path: str) -> ErrorResponse:
    """How errors are worded where no row matches: by the family the path looks like."""
    return openai_error if raw_path.startswith(("/v1/", "/openai/")) else bedrock_error
