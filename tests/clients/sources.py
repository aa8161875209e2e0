"""The clients' own integration tests, out of their source distributions, as they are.

They run against the model that follows rules (``scripted.py``). What is left out is named with its reason.
"""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One client's tests.

    Attributes:
        stem: how its archive's name begins.
        files: below its root.
        left_out: tests of the first file that do not apply, as pytest's ids after its name, by the reason.
        only: pytest's expression for the tests that apply, where most do not.
    """

    stem: str
    files: Sequence[str]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    only: str = ""


MEDIA = "images, audio and documents are refused"
CACHE = "counts what a cache point writes; prefixes are cached unasked here"
OPENAI = ("completions", "models")
SOURCES = (
    Source(
        "langchain_aws",
        ["tests/integration_tests/chat_models/test_standard.py"],
        {
            "Anthropic's native body is not served": ["TestBedrockStandard"],
            MEDIA: ["TestBedrockUseConverseStandard::test_image_inputs"],
        },
    ),
    Source(
        "openai",
        ["tests/api_resources/chat/test_completions.py", *(f"tests/api_resources/test_{it}.py" for it in OPENAI)],
        {"uses every parameter at once, images and audio among them": ["all_params"]},
        only="(create_overload and not all_params) or (test_models and not delete)",
    ),
    Source(
        "strands_agents",
        [
            "tests_integ/models/test_model_bedrock.py",
            "tests_integ/test_agent_async.py",
            "tests_integ/test_context_overflow.py",
            "tests_integ/test_stream_agent.py",
            "tests_integ/test_tool_context_injection.py",
            "tests_integ/test_tool_retry_hook.py",
        ],
        {
            MEDIA: [
                "test_invoke_multi_modal_input",
                "test_invoke_audio_input",
                "test_document_citations",
                "test_document_citations_streaming",
                "test_structured_output_multi_modal_input",
                "test_a_cache_point_after_a_document_is_accepted",
            ],
            CACHE: [
                "test_prompt_caching_with_5m_ttl",
                "test_prompt_caching_with_1h_ttl",
                "test_prompt_caching_with_ttl_in_messages",
                "test_prompt_caching_backward_compatibility_no_ttl",
                "test_prompt_caching_cache_config_auto_with_ttl",
                "test_prompt_caching_aligned_1h_ttl_across_checkpoints",
                "test_prompt_caching_untimed_cache_tools_inherits_the_configured_ttl",
                "test_a_cache_boundary_keeps_per_call_content_out_of_the_cached_prefix",
                "test_a_leading_cache_point_is_accepted",
                "test_a_caller_ttl_does_not_conflict_with_the_tools_ttl",
            ],
            "Claude's field thinking is refused": ["test_reasoning_content_in_messages_with_thinking_disabled"],
        },
    ),
)


def run_sources(archives: Path, python: Path, environment: Mapping[str, str]) -> int:
    """Run all of them; the worst exit code.

    Args:
        archives: where the source distributions lie.
        python: of an environment that has the clients.
    """
    return max([_run(source, archives, python, environment) for source in SOURCES])


def _run(source: Source, archives: Path, python: Path, environment: Mapping[str, str]) -> int:
    found = sorted(archives.glob(f"{source.stem}-*.tar.gz"))
    print(f"\nown tests of {found[-1].name if found else source.stem}", flush=True)
    if not found:
        print(f"its source distribution is not in {archives}; run make clients")
        return 2
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(found[-1]) as archive:
            archive.extractall(directory, filter="data")
        root = next(Path(directory).iterdir())
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:warnings", "-o", "addopts=", *_selection(source)]
        command = [str(python), "-m", "pytest", *arguments, *source.files]
        code = subprocess.run(command, cwd=root, env=os.environ | environment, check=False).returncode
    for reason, tests in source.left_out.items():
        print(f"left out, {reason}: {', '.join(tests)}")
    return code


def _selection(source: Source) -> Iterator[str]:
    if source.only:
        yield f"-k={source.only}"
        return
    for tests in source.left_out.values():
        for test in tests:
            yield f"--deselect={source.files[0]}::{test}"
