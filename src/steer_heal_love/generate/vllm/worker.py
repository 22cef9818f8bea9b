"""The worker that vLLM starts in place of its own: the same, with steering in its layers. Imported by vLLM only.

vLLM names the class of its workers as a setting, so nothing of it is patched from outside and stock wheels do. It can't be an
extension of the worker: those are called once the graphs are captured, which is too late.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from vllm.platforms import current_platform

from steer_heal_love.generate.vllm.steered import Buffers

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Own
else:
    from vllm.v1.worker.gpu_worker import Worker as Own


class SteeredWorker(Own):  # type: ignore[misc]
    """Layers are changed when the model is loaded, before anything is compiled or captured."""

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        out = super().load_model(*args, **kwargs)
        runner, model = self.model_runner, self.model_runner.get_model()
        c = self.vllm_config.model_config.hf_text_config
        like = torch.empty(0, dtype=self.vllm_config.model_config.dtype, device=runner.device)
        tokens = self.vllm_config.scheduler_config.max_num_batched_tokens
        tokens = max([tokens, *(self.vllm_config.compilation_config.cudagraph_capture_sizes or [])])
        self.steering = Buffers(model, c.num_hidden_layers, c.hidden_size, tokens, like)
        observe(runner, self.steering)
        return out

    def execute_model(self, scheduler_output: Any) -> Any:
        new = [
            (r.req_id, r.sampling_params.extra_args if r.sampling_params else None)
            for r in scheduler_output.scheduled_new_reqs
        ]
        self.steering.note(new, set(scheduler_output.finished_req_ids))
        return super().execute_model(scheduler_output)

    def steer_by(self, file: str) -> None:
        """Take the directions in this file of safetensors."""
        self.steering.put(load_file(file))


def observe(runner: Any, steering: Buffers) -> None:
    """Fill the doses as soon as the runner knows the order of a step's rows. There are two kinds of runner."""
    if hasattr(runner, "_prepare_inputs"):
        inner = runner._prepare_inputs

        def prepared(scheduler_output: Any, counts: Any, *args: Any, **kwargs: Any) -> Any:
            steering.fill(list(runner.input_batch.req_ids), [int(n) for n in counts])
            return inner(scheduler_output, counts, *args, **kwargs)

        runner._prepare_inputs = prepared
    else:
        second = runner.prepare_inputs

        def prepared_second(*args: Any, **kwargs: Any) -> Any:
            batch = second(*args, **kwargs)
            steering.fill(list(batch.req_ids), [int(n) for n in batch.num_scheduled_tokens])
            return batch

        runner.prepare_inputs = prepared_second
