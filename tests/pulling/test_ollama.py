"""Models come and go, by Ollama's packages. The daemon of GEMMAD_SOCKET has none at first, and a hub that has MODEL."""

import os
import subprocess

import httpx
import ollama
import pytest

SOCKET = os.environ["GEMMAD_SOCKET"]
ID = "tiny-e2b-q8_0"
MODEL = f"tiny/models:{ID}.gguf"
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client():
    return ollama.Client(host="http://localhost", transport=httpx.HTTPTransport(uds=SOCKET), timeout=60)


def names(client):
    return [model.model for model in client.list().models]


def test_a_model_comes_and_goes(client):
    assert names(client) == []
    with pytest.raises(ollama.ResponseError, match="no model is installed"):
        client.chat("auto", [{"role": "user", "content": "Hi"}])
    told = list(client.pull(MODEL, stream=True))
    assert (told[0].status, told[-1].status) == ("pulling manifest", "success")
    files = {}
    for progress in told:
        if progress.total:
            assert progress.digest.startswith("sha256:") and progress.status.startswith("pulling ")
            assert files.get(progress.digest, 0) <= progress.completed <= progress.total
            files[progress.digest] = progress.completed
    # With what belongs to it.
    assert len(files) == 3 and sum(files.values()) == client.list().models[0].size
    assert names(client) == [f"{ID}:latest"]
    # It is there.
    assert client.pull(MODEL).status == "success"
    answer = client.chat(f"{ID}:latest", [{"role": "user", "content": "What is the capital of France?"}], options={"temperature": 0})
    assert answer.message.content == PARIS
    with pytest.raises(ollama.ResponseError, match="is in use") as error:
        client.delete(ID)
    assert error.value.status_code == 409
    client.generate(ID, keep_alive=0)
    assert client.delete(f"{ID}:latest").status == "success"
    assert names(client) == []


def test_what_cannot_be_fetched(client):
    for model, words in [("tiny/models:nothing.gguf", "nothing.gguf"), ("llama3.2", "llama3.2"), ("acme/none", "acme/none")]:
        with pytest.raises(ollama.ResponseError, match=words) as error:
            client.pull(model)
        assert error.value.status_code in (400, 404, 502)
        with pytest.raises(ollama.ResponseError, match=words):
            list(client.pull(model, stream=True))
    with pytest.raises(ollama.ResponseError, match="`insecure` can only be false"):
        client.pull(MODEL, insecure=True)


SCRIPT = """
import assert from 'node:assert';
import { Ollama } from 'ollama';
import { Agent, fetch } from 'undici';
const dispatcher = new Agent({ connect: { socketPath: process.argv[2] } });
const client = new Ollama({ host: 'http://localhost', fetch: (url, init) => fetch(url, { ...init, dispatcher }) });
const names = async () => (await client.list()).models.map((model) => model.name);
const [id, model] = process.argv.slice(3);
let last, most = 0;
for await (const progress of await client.pull({ model, stream: true })) {
  last = progress.status;
  most = Math.max(most, progress.completed ?? 0);
}
assert(last === 'success' && most > 1000);
assert.deepEqual(await names(), [`${id}:latest`]);
assert.equal((await client.show({ model: id })).details.family, 'gemma4');
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
let text = '';
for await (const piece of await client.chat({ model: id, messages, options: { temperature: 0 }, stream: true })) text += piece.message.content;
const running = await client.ps();
assert.equal(running.models[0].name, `${id}:latest`);
const forms = await client.generate({ model: id, prompt: 'What is 27 + 58?', think: 'low', options: { temperature: 0 } });
assert(forms.thinking && forms.response === '27 + 58 = 85.');
await assert.rejects(client.embed({ model: id, input: 'a' }), /embeddings: not served here/);
await assert.rejects(client.chat({ model: 'llama3.2', messages }), (error) => error.status_code === 404);
await client.generate({ model: id, prompt: '', keep_alive: 0 });
assert.deepEqual((await client.ps()).models, []);
await client.delete({ model: id });
assert.deepEqual(await names(), []);
console.log(text);
await dispatcher.close();
"""


def test_the_package_for_node(tmp_path):
    modules = os.environ.get("GEMMAD_NODE_MODULES")
    if not modules:
        pytest.skip("GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "models.mjs").write_text(SCRIPT)
    run = subprocess.run(["node", "models.mjs", SOCKET, ID, MODEL], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, PARIS), run.stderr
