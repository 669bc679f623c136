"""Serve a repo folder's `handler.py` over HTTP where this package cannot be imported; run by `test_handler.py`.

It speaks as Hugging Face's Inference Toolkit does: JSON goes to the handler parsed and an image decoded, the query goes
into `parameters`, and what an exception says goes back with status 400. Bytes of no known type, which the toolkit
refuses, go to the handler as they are, as other servers do it.
"""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import importlib.util
import io
import json
import socket
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from PIL import Image

repo = Path(sys.argv[1])
torch.set_num_threads(1)
sys.path.insert(0, str(repo))  # as the toolkit does, for what the handler imports
spec = importlib.util.spec_from_file_location("handler", repo / "handler.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(str(repo))
app = FastAPI()


def deserialize(content_type, body):
    if content_type == "application/json":
        return json.loads(body)
    if content_type.startswith("image/"):
        return {"inputs": Image.open(io.BytesIO(body)).convert("RGB")}
    return {"inputs": body}


@app.post("/")
async def predict(request: Request):
    try:
        data = deserialize(request.headers.get("content-type", ""), await request.body())
        if "inputs" not in data:
            raise ValueError("Body needs to provide an inputs key")
        if request.query_params and "parameters" not in data:
            data["parameters"] = {
                name: int(value) if value.isdecimal() else value for name, value in request.query_params.items()
            }
        return JSONResponse(await run_in_threadpool(handler, data))
    except Exception as error:
        return JSONResponse({"error": str(error), "kind": type(error).__name__}, status_code=400)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
