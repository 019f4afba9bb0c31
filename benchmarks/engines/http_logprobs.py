"""Any engine behind HTTP: the log-probabilities of a prompt of token ids, through OpenAI's completions API."""

import json
import math
import urllib.request


def losses_of(url, ids, chunk=None, model="novels", as_prompt=list, left_out=0):
    """Return the nats of each token except the first, from a server such as http://127.0.0.1:8000/v1.

    With a `chunk` the text is sent repeatedly, longer by `chunk` tokens each time, so a server that continues from what
    it has already read takes that many at once. Only the new losses are used from each answer. For a server that takes
    text, `as_prompt` turns the ids into text; the losses of the first `left_out` tokens, if it leaves any out, are NaN.
    """
    losses, chunk = [], chunk or len(ids)
    for stop in [*range(1 + chunk, len(ids), chunk), len(ids)]:
        prompt = as_prompt(ids[:stop])
        answer = asked(f"{url}/completions", model=model, prompt=prompt, max_tokens=1, echo=True, logprobs=1)
        logprobs = [None] * left_out + answer["choices"][0]["logprobs"]["token_logprobs"][:-1]  # drop the generated one
        if len(logprobs) != stop:
            raise ValueError(f"{stop} tokens went in and {len(logprobs)} came back: does it echo the prompt?")
        losses += [math.nan if x is None else -x for x in logprobs[1 + len(losses) :]]
    return losses


def asked(url, **question):
    """Return the answer to one request."""
    body = json.dumps(question | {"temperature": 0}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)
