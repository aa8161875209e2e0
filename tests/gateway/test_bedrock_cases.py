"""Thirty cases by which a server that says it speaks Bedrock's API can be judged, and where each is tested.

Those that no other file tests stand below. Cases of what is not built yet have no test, and say why.
"""

import asyncio
import importlib
from collections.abc import Mapping

import pytest
from botocore.exceptions import ClientError

from tests.gateway.house import EOS, House, converse_body, frames, open_house
from tests.gateway.test_app import Client
from tests.gateway.test_event_stream import MESSAGE_START
from twinfer.core.clock import ManualClock
from twinfer.core.config import Config, QuotaConfig, RoutingConfig
from twinfer.core.errors import CapacityError, Throttled
from twinfer.core.ids import TenantId
from twinfer.core.service import Tier
from twinfer.gateway.books import Books
from twinfer.gateway.dialects import event_stream
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.office import Office
from twinfer.gateway.quotas import Quotas
from twinfer.gateway.serve import build_app
from twinfer.usage.daybook import Daybook

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
LLAMA = "meta.llama3-1-8b-instruct-v1:0"
PATH = f"/model/{MODEL}/converse"

CASES: Mapping[str, str] = {
    "1 an answer with all members": "test_bedrock_converse.test_an_answer_has_everything_boto3_s_model_asks_for",
    "2 names: ARN, profile": "test_bedrock_converse.test_names_with_slashes_and_colons_find_their_model",
    "2 names: application profile": "test_bedrock_profiles.test_an_application_s_profile",
    "3 unknown model": "test_bedrock_converse.test_unknown_models_are_worded_as_aws_does",
    "4 unknown application profile": "test_bedrock_converse.test_unknown_models_are_worded_as_aws_does",
    "5 bad values that boto3 lets pass": "test_converse_request.test_every_complaint_names_its_place",
    "6 maxTokens 0": "test_converse_request.test_every_complaint_names_its_place",
    "7 stop sequence": "test_bedrock_converse.test_a_stop_sequence_ends_the_text_and_is_reported_on_request",
    "8 response fields that are absent": "test_bedrock_cases.test_an_absent_field_is_left_out",
    "9 length": "test_bedrock_converse.test_lengths_have_their_own_stop_reasons",
    "10 a tool is called": "test_bedrock_tools.test_a_call_is_an_object_with_an_id",
    "11 a tool is forced": "test_bedrock_tools.test_a_forced_call_is_begun_for_the_model",
    "11 what it is called with": "test_grammars.test_a_forced_call_comes",
    "12 calls without tools or results": "test_converse_request.test_every_complaint_names_its_place",
    "13 a stream of text": "test_bedrock_converse.test_a_stream_s_events_are_boto3_s",
    "14 a stream of all blocks": "test_bedrock_tools.test_a_stream_has_a_block_for_each_thought_text_and_call",
    "15 a stream's bytes": "test_bedrock_cases.test_a_padded_stream_s_bytes",
    "16 the engine dies in mid-stream": "test_bedrock_converse.test_failures_in_the_stream_break_it",
    "17 no engine before the first token": "test_bedrock_cases.test_boto3_tries_as_often_as_it_was_told",
    "18 the model is being loaded": "test_bedrock_converse.test_boto3_comes_again_when_it_may_work",
    "19 over the tenant's tokens per minute": "test_quotas.test_over_the_quota_is_429",
    "20 the client leaves": "test_app.test_a_client_that_leaves_in_mid_stream_cancels_its_work",
    "20 before the first token": "test_app.test_a_client_that_leaves_while_waiting_cancels_its_work",
    "20 its quota and its count": "test_bedrock_cases.test_who_leaves_is_settled_and_counted_once",
    "21 Llama's body without Content-Type": "test_bedrock_invoke.test_a_body_needs_no_content_type",
    "22 native streams' counts": "test_bedrock_invoke.test_counts_are_in_headers_and_in_the_last_chunk_alone",
    "23 an empty native body": "test_bedrock_invoke.test_a_body_without_what_its_family_needs_is_worded_as_aws_does",
    "24 CountTokens": "test_same_tokens.test_every_door_gives_the_same_tokens",
    "25 signatures: known answers": "identity.test_sigv4.test_a_path_encoded_once_on_the_wire",
    "25 signatures: a session token": "identity.test_sigv4.test_an_arn_and_a_session_token",
    "25 signatures: a raw colon": "identity.test_sigv4.test_a_raw_colon",
    "25 signatures: a flipped byte": "identity.test_sigv4.test_a_flipped_byte_of_the_body",
    "25 signatures: skew": "identity.test_verify.test_six_minutes_are_too_far",
    "25 signatures: boto3, a wrong clock, a wrong secret": "test_auth.test_strangers_and_forgers",
    "25 signatures: a missing token": "test_auth.test_boto3_with_a_temporary_key",
    "26 bearer keys": "test_auth.test_bearer_keys",
    "26 bearer keys: short-term, other Region": "identity.test_verify.test_a_short_term_key_ends",
    "27 latency mode, as served": "test_bedrock_converse.test_service_choices_are_echoed_as_served",
    "27 above the limit, and by header": "test_bedrock_cases.test_low_latency_up_to_its_limit",
    "28 tiers under load": "core.test_turns.test_better_ranks_come_first_and_within_one_the_first",
    "28 flex is shed first": "test_full_gateway.test_flex_is_sent_away_first_and_the_reserved_tier_last",
    "28 the tier that served": "test_quotas.test_reserved_runs_over_into_default",
    "29 cache points": "test_cache_points.test_the_accounts_add_up",
    "29 as the engine counts": "e2e.test_cache_points.test_the_same_tenant_hits_and_another_misses",
    "29 a changed tool": "test_cache_points.test_a_changed_tool_is_not_found",
    "29 OpenAI's door": "test_openai_chat.test_a_completion_under_both_prefixes",
    "30 openai: usage at a stream's end": "test_openai_chat.test_a_stream_tells_its_usage_when_asked",
    "30 openai: n": "test_openai_chat.test_n_answers_keep_apart",
    "30 openai: json_schema": "test_output_schema.test_the_openai_sdk_parses_what_it_asked_for",
    "30 openai: log probabilities": "test_openai_chat.test_logprobs_stand_beside_their_tokens",
    "30 openai: bad values, unknown models": "test_openai_chat.test_refusals_raise_the_sdk_s_classes",
    "30 openai: wrong key": "test_auth.test_openai_s_key",
    "frame of an event, of an exception": "test_event_stream.test_frames_are_aws_s_to_the_byte",
    "keys computed elsewhere": "identity.test_verify.test_the_generator_s_short_term_key",
    "one prompt through every door": "test_same_tokens.test_every_door_gives_the_same_tokens",
    "10,000 fuzzed requests": "fuzz.test_fuzz.test_ten_thousand_requests",
    "request ids": "test_bedrock_cases.test_no_two_requests_have_one_id",
}


async def test_every_case_has_its_test() -> None:
    """Those that name one."""
    for case, test in CASES.items():
        if " " not in test:
            module, _, name = test.rpartition(".")
            package = "tests" if "." in module and not module.startswith("fuzz.") else "tests.gateway"
            assert hasattr(importlib.import_module(f"{package}.{module}"), name), case
    numbers = {case.split()[0] for case in CASES}
    assert {str(number) for number in range(1, 31)} <= numbers


async def test_an_absent_field_is_left_out(house: House) -> None:
    """Rather than refused, or ``null``."""
    answer = await house.http.post(PATH, json=converse_body(additionalModelResponseFieldPaths=["/absent"]))
    assert answer.status_code == 200
    assert "additionalModelResponseFields" not in answer.json()


async def test_a_padded_stream_s_bytes(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS, with the padding that one of AWS's recorded frames has, the first frame is that one to the byte."""
    monkeypatch.setattr(event_stream.secrets, "randbelow", lambda limit: 4)
    dispatcher = FakeDispatcher(lambda request: Script([[5], [EOS]]))
    client = Client(
        build_app(Config(), ModelRegistry([model]), dispatcher), f"{PATH}-stream", converse_body(), scheme="https"
    )
    await client.exchange
    assert bytes.fromhex(MESSAGE_START) == client.body[: len(MESSAGE_START) // 2]
    assert [event["p"] for _, event in frames(client.body)] == ["abcdef"] * 5


@pytest.mark.parametrize("attempts", [1, 3])
async def test_boto3_tries_as_often_as_it_was_told(house: House, attempts: int) -> None:
    """When there is never any room, its last error is the modelled one."""
    house.plays(Script([], failure=CapacityError("Full.", 0.01)))
    client = house.boto3(attempts=attempts)
    with pytest.raises(client.exceptions.ServiceUnavailableException):
        await asyncio.to_thread(lambda: client.converse(modelId=MODEL, **converse_body()))
    assert attempts == len(house.dispatcher.generations)


async def test_low_latency_up_to_its_limit(model: ServedModel) -> None:
    """Above it the answer is as good, says that it was standard, and is counted; InvokeModel says so in headers."""
    config = Config(routing=RoutingConfig(max_optimized_tokens=100))
    latency = "x-amzn-bedrock-performanceconfig-latency"
    async with open_house(model, config) as house:
        house.reset()
        house.dispatcher.fast = {model.id}
        for most, served in ((20, "optimized"), (400, "standard")):
            fields = {"performanceConfig": {"latency": "optimized"}, "inferenceConfig": {"maxTokens": most}}
            answer = await house.http.post(PATH, json=converse_body(**fields))
            assert (answer.status_code, answer.json()["performanceConfig"]) == (200, {"latency": served})
            native = {"prompt": "hi", "max_gen_len": most}
            told = await house.http.post(f"/model/{LLAMA}/invoke", json=native, headers={latency: "optimized"})
            assert (told.status_code, told.headers[latency]) == (200, served)
        metrics = (await house.http.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith("twinfer_gateway_downgrades_total")]
    assert counted == [f'twinfer_gateway_downgrades_total{{model_id="{MODEL}",reason="too_long_for_optimized"}} 2.0']


async def test_who_leaves_is_settled_and_counted_once(model: ServedModel) -> None:
    """Before the first token nothing is charged, and in mid-stream what came is; the rest may be used at once."""
    for sent, gate in ((0, 0), (2, 2)):
        meter, quotas = Meter(), Quotas([QuotaConfig(tokens_per_min=600)], ManualClock())
        daybook = Daybook()
        office = Office(Books(quotas=quotas, charge=meter.accounts.charge, daybook=daybook), meter)
        dispatcher = FakeDispatcher(lambda request, gate=gate: Script([[5], [6], [EOS]], gates={gate: asyncio.Event()}))
        app = build_app(Config(), ModelRegistry([model]), dispatcher, office=office)
        client = Client(app, f"{PATH}-stream", converse_body())
        while not dispatcher.generations or dispatcher.generations[0].sent < sent:
            await asyncio.sleep(0)
        client.left.set()
        await asyncio.wait_for(client.exchange, 5)
        await asyncio.wait_for(dispatcher.generations[0].closed.wait(), 5)
        used = len(dispatcher.generations[0].request.prompt) + sent if sent else 0
        with daybook.page() as page:
            quotas.reserve(page, TenantId("default"), model.id, Tier.DEFAULT, 600 - used)
            with pytest.raises(Throttled):
                quotas.reserve(page, TenantId("default"), model.id, Tier.DEFAULT, 1)
        assert 'twinfer_gateway_cancelled_total{operation="ConverseStream"} 1.0' in meter.text().splitlines()


async def test_no_two_requests_have_one_id(house: House) -> None:
    """Answers and refusals alike; boto3 shows it with both."""
    client, ids = house.boto3(), []
    for _ in range(20):
        ids.append((await house.http.post(PATH, json=converse_body())).headers["x-amzn-requestid"])
        with pytest.raises(ClientError) as refused:
            await asyncio.to_thread(lambda: client.converse(modelId="foo.bar-v1:0", **converse_body()))
        ids.append(refused.value.response["ResponseMetadata"]["RequestId"])
    assert len(set(ids)) == 40
