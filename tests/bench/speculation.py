#!/usr/bin/env python3
"""Measure what trying several tokens in a step gains: the same answers with `speculation` on, auto and off, in turn.

    speculation.py edits --gemmad PATH [--model FILE]  a text is given back, which the request predicts
    speculation.py json --gemmad PATH [--model FILE]   objects of many schemas
    speculation.py prose --gemmad PATH [--model FILE]  nothing that was said before: it must not be slower
    speculation.py clients --gemmad PATH [--model FILE] several answers together
    speculation.py drafts --gemmad PATH --model FILE --drafter FILE --drafter FILE    what a guess of each takes

A full-size file with random weights says nothing by itself, so `edits` and `prose` hold its answers to words that are
single tokens, and the prediction is what it says then, in which one word in so many (`--changed`) is another: that
is how often a guess is right. `json` needs a model that was trained. Answers that differ end the run.
Only the standard library.
"""
import argparse, json, os, random, statistics, sys, tempfile, threading, time

import bench

MODES = ("off", "auto", "on")
NAMES = "name age city street colour price amount title author language verified height width tags status owner country email phone note".split()


def ask(server, text, tokens, mode, **more):
    """One answer: its text, tokens, seconds from the first token to the last, and its usage."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0, "cache_prompt": False,
            "chat_template_kwargs": {"enable_thinking": False}, "speculation": mode, **more}
    reply = bench.post(server, "/v1/chat/completions", body)
    usage, timings = reply["usage"], reply["timings"]
    return reply["choices"][0]["message"]["content"], usage["completion_tokens"], timings["predicted_ms"] / 1e3, usage["completion_tokens_details"]


def words(server):
    """Words that are one token each behind another word, with the bias that leaves nothing else to say."""
    tokens = [bench.post(server, "/tokenize", {"content": " " + word})["tokens"] for word in bench.WORDS]
    return {str(one[0]): 100 for one in tokens if len(one) == 1}


def changed(text, share, seed):
    """A text in which some words are others."""
    rng = random.Random(seed)
    return " ".join(rng.choice(bench.WORDS) if rng.random() < share else word for word in text.split(" "))


def schema(seed):
    """A schema as programs have them: an object of strings, numbers and lists, some of them nested."""
    rng = random.Random(seed)

    def value(depth):
        kind = rng.choice(["string", "integer", "boolean", "enum", "array", "object"] if depth else ["string", "integer", "boolean", "enum"])
        if kind == "enum":
            return {"enum": rng.sample(NAMES, 3)}
        if kind == "array":
            return {"type": "array", "items": value(0), "minItems": 1, "maxItems": 2}
        return thing(depth - 1) if kind == "object" else {"type": kind, **({"maxLength": 20} if kind == "string" else {})}

    def thing(depth):
        names = rng.sample(NAMES, rng.randint(2, 5))
        return {"type": "object", "properties": {name: value(depth) for name in names}, "required": names, "additionalProperties": False}

    return thing(2)


def cases(server, a):
    """What is asked: text, tokens, and more of the request."""
    if a.what == "json":
        for seed in range(a.cases):
            form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema(seed), "strict": True}}
            yield "Describe Anna, who is 27 years old and lives in Rome.", 400, {"response_format": form}
        return
    held = {"ignore_eos": True, "logit_bias": words(server), "repetition_guard": False}
    for seed in range(a.cases):
        text = bench.prompt(a.prompt, seed)
        if a.model or a.what != "edits":
            more = held
        else:
            text, more = "Repeat this text: " + text, {}
        if a.what == "edits":
            said = ask(server, text, a.predict, "off", **more)[0]
            more = {**more, "prediction": {"type": "content", "content": changed(said, a.changed, seed)}}
        yield text, a.predict, more


def alone(server, a):
    rows, tried = {mode: [] for mode in MODES}, {mode: [0, 0] for mode in MODES}
    asked = list(cases(server, a))
    ask(server, *asked[0][:2], "on", **asked[0][2])
    for run in range(a.runs):
        for text, tokens, more in asked:
            answers = {}
            for mode in random.Random(run).sample(MODES, len(MODES)):
                said, count, seconds, details = ask(server, text, tokens, mode, **more)
                answers[mode] = said
                rows[mode].append({"ms per token": seconds * 1e3 / max(count - 1, 1)})
                tried[mode][0] += details["accepted_prediction_tokens"]
                tried[mode][1] += details["rejected_prediction_tokens"]
            if len(set(answers.values())) > 1:
                print("answers differ, as where the model is undecided:", json.dumps(answers), file=sys.stderr)
                a.differ += 1
    for mode in ("auto", "on"):
        bench.report({"off": rows["off"], mode: rows[mode]})
        print(f"{mode}: {tried[mode][0]} of {sum(tried[mode])} tokens that were tried were right")
    if a.differ * 20 > len(asked) * a.runs:
        sys.exit(f"{a.differ} of {len(asked) * a.runs} answers differ")


def clients(server, a):
    """Tokens/s of several answers together, each of which could be predicted."""
    a.what = "edits"
    asked = list(cases(server, a))[:a.clients]
    rows = {mode: [] for mode in MODES}
    for _ in range(a.runs * 3):
        for mode in MODES:
            done = []
            threads = [threading.Thread(target=lambda case=case: done.append(ask(server, *case[:2], mode, **case[2])[1])) for case in asked]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rows[mode].append({"tokens/s in all": sum(done) / (time.perf_counter() - start)})
    for mode in ("auto", "on"):
        bench.report({mode: rows[mode], "off": rows["off"]})


def drafts(a):
    """The same answers beside each drafter, whose guesses are wrong (random weights): what the guesses of one take more."""
    took, guesses = {}, {}
    for run in range(a.runs):
        for drafter in random.Random(run).sample(a.drafter, len(a.drafter)):
            with tempfile.TemporaryDirectory(prefix="gemmad-bench-", dir=os.path.dirname(os.path.abspath(a.model))) as folder:
                model = os.path.join(folder, os.path.basename(a.model))
                for file in (a.model, drafter):
                    os.link(file, os.path.join(folder, os.path.basename(file)))
                server = bench.gemmad(argparse.Namespace(**{**vars(a), "model": model}))
                try:
                    # Beside a drafter whose guesses are wrong.
                    asked = list(cases(server, argparse.Namespace(**{**vars(a), "what": "prose"})))
                    ask(server, *asked[0][:2], "on", **asked[0][2])
                    before = bench.status(server)["speculation"]["drafter"]
                    for text, tokens, more in asked:
                        took.setdefault(drafter, []).append(ask(server, text, tokens, "on", **more)[2] * 1e3)
                        took.setdefault("off", []).append(ask(server, text, tokens, "off", **more)[2] * 1e3)
                    after = bench.status(server)["speculation"]["drafter"]
                    guesses.setdefault(drafter, []).append(sum(after.values()) - sum(before.values()))
                finally:
                    server.close()
    print(f"off: {statistics.median(took['off']) / (a.predict - 1):.2f} ms a token")
    for drafter in a.drafter:
        each = statistics.mean(guesses[drafter]) / a.cases
        print(f"{drafter}: {statistics.median(took[drafter]) / (a.predict - 1):.2f} ms a token, {each:.0f} guesses an answer")
        if drafter != a.drafter[0]:
            less = [(first - other) / each for first, other in zip(sorted(took[a.drafter[0]]), sorted(took[drafter]))]
            print(f"  {statistics.median(less):.3f} ms less for each guess than {a.drafter[0]}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["edits", "json", "prose", "clients", "drafts"])
    p.add_argument("--gemmad", required=True, help="the daemon's program; its worker lies beside it")
    p.add_argument("--model", help="a GGUF file; the tiny model if none is given")
    p.add_argument("--context", type=int, default=4096)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--clients", type=int, default=4, help="clients: how many at a time")
    p.add_argument("--cases", type=int, default=10, help="questions")
    p.add_argument("--prompt", type=int, default=60, help="words in a prompt")
    p.add_argument("--predict", type=int, default=100, help="tokens in an answer")
    p.add_argument("--changed", type=float, default=0.05, help="edits: the share of words that are not as predicted")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--drafter", action="append", default=[], help="drafts: a drafter of the model, two or more")
    a = p.parse_args()
    if a.what == "drafts" and not (a.model and len(a.drafter) > 1):
        p.error("drafts needs --model and --drafter, twice or more")
    a.slots, a.differ = (a.clients if a.what == "clients" else 1), 0
    with tempfile.TemporaryDirectory(prefix="gemmad-bench-") as a.directory:
        if a.what == "drafts":
            return drafts(a)
        server = bench.gemmad(a)
        try:
            (clients if a.what == "clients" else alone)(server, a)
            print("by source:", json.dumps(bench.status(server)["speculation"]))
        finally:
            server.close()


if __name__ == "__main__":
    main()
