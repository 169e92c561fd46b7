"""AdamW, in torch's fused kernel: one pass over each parameter.

Source: Loshchilov and Hutter 2019, arXiv:1711.05101. The same arithmetic as `torch.optim.AdamW`
(the test's oracle), whose constructor spends seconds on importing torch's compiler.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AdamW:
    """AdamW over named parameters with dense gradients; one without a gradient stays as it is.

    Args:
        parameters: Names and parameters, all on one device.
        betas: Decay of the means of gradients and of squared gradients.
        eps: Added to the root of the mean squared gradient.
        weight_decay: Decoupled: each step shrinks a parameter by `lr * weight_decay`.

    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._parameters = dict(parameters)
        self._state = {
            name: {
                "exp_avg": torch.zeros_like(parameter, dtype=torch.float32),
                "exp_avg_sq": torch.zeros_like(parameter, dtype=torch.float32),
                "steps": torch.zeros((), device=parameter.device),
            }
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""
        moving = [name for name, p in self._parameters.items() if p.grad is not None]
        if not moving:
            return
        parameters, gradients = self._parameters, []
        for name in moving:
            self._state[name]["steps"] += 1
            gradients.append(parameters[name].grad)
        states = [self._state[name] for name in moving]
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage, reportCallIssue]
            [parameters[name] for name in moving],
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["steps"] for state in states],
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Means, mean squares and step counts, as `exp_avg.NAME` and so on; not copies."""
        return {
            f"{key}.{name}": tensor
            for name, state in self._state.items()
            for key, tensor in state.items()
        }
