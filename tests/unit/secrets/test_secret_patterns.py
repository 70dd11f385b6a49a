"""Which keys and which texts are taken for secrets, and which are not."""

import pytest

from mlscale.secrets.secret_patterns import MASK, find_secret_spans, has_known_format, is_secret_key, mask_spans

HEX40 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "key",
    [
        "token", "api_key", "apiKey", "WANDB_API_KEY", "wandbAPIKey", "hf_token", "password", "db_pass", "passwd",
        "client_secret", "secret", "aws_secret_access_key", "access_key_id", "private_key", "ssh-key", "credentials",
        "dsn", "sentry_dsn", "auth", "basic_auth", "Authorization", "bearer_token", "connection_string", "webhook",
        "webhook_url", "passphrase", "access_tokens", "MLSCALE_SECRET_A",
    ],
)  # fmt: skip
def test_secret_like(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "tokenizer", "max_tokens", "num_tokens", "tokens", "pad_token", "eos_token", "mask_token", "token_type", "key",
        "key_size", "image_key", "label_key", "key_path", "keys", "monkey", "author", "authors", "passes",
        "bypass_mode", "password_file", "token_dim", "secretary", "compass", "lr", "api", "public_key_size", "_target_",
        "",
    ],
)  # fmt: skip
def test_harmless_key(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    "value",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "github_pat_" + "A1b2" * 8,
        "sk-" + "proj-abcDEF123456" * 2,
        "hf_" + "aBcDeFgHiJ" * 3,
        "xoxb-" + "123456789012-abcdef",
        "eyJhbGciOi" + "JIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
        "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----",
        "https://ana:" + "hunter22@example.org/x",
        "https://b.example.org/0.tar?X-Amz-Date=1&X-Amz-Signature=" + "hunter22",
        "https://b.example.org/0.tar?sv=1&sig=" + "hunter22%2B",
        "local-" + HEX40,
    ],
)
def test_well_known_format(value: str) -> None:
    assert has_known_format(value)
    text = f"before {value} after"
    cleaned = mask_spans(text, find_secret_spans(text))
    assert MASK in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert not any(part in cleaned for part in ("hunter22", "IOSFODNN", "MIIEpA", HEX40))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a@b",
        "https://example.org/a?design=modern&sigma=0.5",
        "https://${oc.env:USER}:${oc.env:PW}@host",
        "s3://bucket/train-{000..010}.tar",
        HEX40,  # a git commit
        "risk-averse-learning-rates-of-a-kind",
        "token = make_token()",
        'password = os.environ["PASSWORD"]',
        "def login(password: str) -> None:",
        'tokenizer = "bert-base-uncased"',
        'api_key = "<your key>"',
        "basic authorization of requests",
        'headers = {"Authorization": f"Bearer {self.key}"}',
        '"mailtos://user:pass@host"',
        'TOKEN = "token"  # a unit',
        '{"api_key": "api-key"}',
    ],
)
def test_harmless_text(text: str) -> None:
    assert find_secret_spans(text, bare=False) == []


@pytest.mark.parametrize(
    "text", ["google-auth==2.63.0 \\", "? 'own = None -> pass': memory", "if password == expected:"]
)
def test_versions_and_comparisons_are_not_assigned(text: str) -> None:
    assert find_secret_spans(text, bare=True) == []


@pytest.mark.parametrize(
    ("text", "bare", "expected"),
    [
        ("DB_PASSWORD=hunter22\nlr: 0.1\n", True, "DB_PASSWORD=***\nlr: 0.1\n"),
        ("api_key: hunter22", True, "api_key: ***"),
        ('x = {"api_key": "hunter22"}', False, 'x = {"api_key": "***"}'),
        ('os.environ["API_KEY"] = "hunter22"', False, 'os.environ["API_KEY"] = "***"'),
        ('token = "token-17"', False, 'token = "***"'),
        ('password: str = "hunter22"', False, 'password: str = "***"'),
        (f"wandb login {HEX40}", False, "wandb login ***"),
        ("DB_PASSWORD = =hunter22", True, "DB_PASSWORD = ***"),
        ('{"Authorization": "Bearer hunter22"}', False, '{"Authorization": "***"}'),
        ("https://ana:password1@host", False, "https://ana:***@host"),
        ("Authorization: Bearer abc123def456", False, "Authorization: Bearer ***"),
    ],
)
def test_assignments(text: str, bare: bool, expected: str) -> None:
    assert mask_spans(text, find_secret_spans(text, bare=bare)) == expected


def test_scanning_is_linear() -> None:
    for text in (
        "a" * 500_000,
        "a:" * 200_000,
        "://" * 200_000,
        "key=" * 100_000,
        '"' * 200_000,
        "-----BEGIN PRIVATE KEY-----" * 2000,
    ):
        find_secret_spans(text)
