"""Public traces: where they are published, under which licence, and the hash by which they are known."""

from dataclasses import dataclass

AZURE = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08/data/"
AZURE_WEEKS = "https://github.com/Azure/AzurePublicDataset/releases/download/dataset-llm-2024/"
# Not pinned: no published hash is known, so that the user must give one.
AZURE_LMM = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data/"
BURSTGPT = "https://github.com/HPMLL/BurstGPT/releases/download/v2.0/"
MOONCAKE = (
    "https://raw.githubusercontent.com/kvcache-ai/Mooncake/3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/"
    "FAST25-release/traces/"
)
QWEN = (
    "https://media.githubusercontent.com/media/alibaba-edu/qwen-bailian-usagetraces-anon/"
    "5f7439c51ec248a0c585f7d90a41a6f57773b912/"
)


@dataclass(frozen=True, slots=True)
class PublicTrace:
    """A trace that anyone may fetch.

    Attributes:
        name: How it is asked for.
        title: What it is.
        address: Pinned to a commit or a release where a hash is known.
        sha256: Of the published file, hex; None where no published hash is known to us.
        licence: SPDX name.
    """

    name: str
    title: str
    address: str
    sha256: str | None
    licence: str

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.address.rsplit("/", 1)[1]


PUBLIC_TRACES = (
    PublicTrace(
        "azure-2023-conv",
        "Azure LLM inference trace 2023, conversation",
        AZURE + "AzureLLMInferenceTrace_conv.csv",
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "azure-2023-code",
        "Azure LLM inference trace 2023, code",
        AZURE + "AzureLLMInferenceTrace_code.csv",
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "azure-2024-conv",
        "Azure LLM inference trace 2024, conversation, week of 12 May",
        AZURE_WEEKS + "AzureLLMInferenceTrace_conv_1week.csv",
        "a0cc9b969a9bbf0fd811802cbf4323edd3a209ace791e3799ad4f9207f213941",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "azure-2024-code",
        "Azure LLM inference trace 2024, code, week of 10 May",
        AZURE_WEEKS + "AzureLLMInferenceTrace_code_1week.csv",
        "71de5c55cbc35f8f1ed0b6b7806b4cd1e9764b0058469725a6aac98023a1448f",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "azure-2025-lmm",
        "Azure LMM inference trace 2025, multimodal",
        AZURE_LMM + "AzureLMMInferenceTrace_multimodal.csv.gz",
        None,
        "CC-BY-4.0",
    ),
    PublicTrace(
        "burstgpt-1",
        "BurstGPT 1, first two months",
        BURSTGPT + "BurstGPT_1.csv",
        "4bb3783693d0a435686fbfc885615d2349bd067239079fa4b749f2e679e12122",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "burstgpt-2",
        "BurstGPT 2, second two months",
        BURSTGPT + "BurstGPT_2.csv",
        "44bf5942b03fca42c01a226a545ad3a750ec62688faecd67b6831c56a8928bf7",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "burstgpt-3",
        "BurstGPT 3, with sessions",
        BURSTGPT + "BurstGPT_3.csv",
        "2299986a07388aa303ec2c41d1131e756db650a39ed6ef9dfe7cc3d7f9a43b8f",
        "CC-BY-4.0",
    ),
    PublicTrace(
        "mooncake-conversation",
        "Mooncake (FAST '25), conversation",
        MOONCAKE + "conversation_trace.jsonl",
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        "Apache-2.0",
    ),
    PublicTrace(
        "mooncake-toolagent",
        "Mooncake (FAST '25), tools and agents",
        MOONCAKE + "toolagent_trace.jsonl",
        "48a2db1a13d3bc05e6330140c64f604ba366df20d3c9e128b5c35a01c1fa5f71",
        "Apache-2.0",
    ),
    PublicTrace(
        "mooncake-synthetic",
        "Mooncake (FAST '25), synthetic: drawn, not recorded",
        MOONCAKE + "synthetic_trace.jsonl",
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
        "Apache-2.0",
    ),
    PublicTrace(
        "qwen-bailian-a",
        "Qwen-Bailian A, to consumers",
        QWEN + "qwen_traceA_blksz_16.jsonl",
        "07cedc9ed8aff301994ac68ed4aede8123b7603673575eeba9dd677de663db17",
        "Apache-2.0",
    ),
    PublicTrace(
        "qwen-bailian-b",
        "Qwen-Bailian B, to businesses",
        QWEN + "qwen_traceB_blksz_16.jsonl",
        "68e3f98e2d601d60d0abf4b89bc8a3654372abab7b1cde6373a13d0054379d59",
        "Apache-2.0",
    ),
    PublicTrace(
        "qwen-bailian-thinking",
        "Qwen-Bailian, thinking models",
        QWEN + "qwen_thinking_blksz_16.jsonl",
        "41ac36d9d1b54d084eeb6b05e9d142ba9d02f8bf79cfc9fff418d8ab7cdee906",
        "Apache-2.0",
    ),
    PublicTrace(
        "qwen-bailian-coder",
        "Qwen-Bailian, code",
        QWEN + "qwen_coder_blksz_16.jsonl",
        "3d74974cebb7bccb69b1ca6ea210a44d9a3033443c0271ed015327284dea1aff",
        "Apache-2.0",
    ),
)


def public_trace(name: str) -> PublicTrace:
    """Return the public trace called `name`.

    Raises:
        ValueError: There is none.
    """
    for trace in PUBLIC_TRACES:
        if trace.name == name:
            return trace
    raise ValueError(
        f"no public trace {name!r}; there are {', '.join(trace.name for trace in PUBLIC_TRACES)}"
    )


def published(sha256: str) -> PublicTrace | None:
    """Return the public trace whose published file has this hash, if one has."""
    return next((trace for trace in PUBLIC_TRACES if trace.sha256 == sha256), None)
