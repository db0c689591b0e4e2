"""Operators under torch.fx and torch.jit.trace, beyond the conformance checks."""

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from nas_recalib.operators import MSSAR, GatherExcite, PSConv2d, SCConv2d, SqueezeExcite


class Twice(SCConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("operator", [SCConv2d(8, 8), PSConv2d(8, 8), MSSAR(8), GatherExcite(8)])
def test_every_network_takes_an_operator_as_one_node(make, normal, operator):
    network = make(nn.Sequential, nn.Conv2d(8, 8, 1), operator)
    traced = symbolic_trace(network)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    for x in (normal(2, 8, 8, 8), normal(3, 8, 11, 9)):
        assert torch.equal(traced(x), network(x))


def test_what_an_operator_is_called_with_is_kept(make, normal):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = SqueezeExcite(8)

        def forward(self, x):
            return self.gate(x=x, residual=2 * x)

    network, x = make(Sum), normal(2, 8, 5, 5)
    assert torch.equal(symbolic_trace(network)(x), network(x))


def test_a_subclass_is_never_taken_for_its_base(make):
    network = make(nn.Sequential, Twice(8, 8))
    with pytest.raises(torch.fx.proxy.TraceError):  # a node that calls the subclass would double twice
        symbolic_trace(network)


@pytest.mark.parametrize(
    ("operator", "shape", "message"),
    [
        (SCConv2d(8, 8), (2, 6, 8, 8), r"scconv: expected \(N, 8, H, W\), got \(2, 6, 8, 8\)"),
        (MSSAR(8), (2, 8, 3, 8), r"msar: scales = \(1, 2, 4\) is not within a 3x8 map"),
        (GatherExcite(8, size=4), (2, 8, 5, 5), "ge: size = 4 is not the side of a 5x5 map"),
    ],
)
def test_jit_refuses_while_tracing_what_a_call_refuses(normal, operator, shape, message):
    with pytest.raises(ValueError, match=message):
        torch.jit.trace(operator.double().eval(), (normal(*shape),))


@pytest.mark.parametrize("operator", [SCConv2d(8, 8), MSSAR(8, clamp=True)])
def test_jit_warns_where_a_small_map_decides(normal, operator):
    with pytest.warns(torch.jit.TracerWarning, match="traced on a 3x5 map where it takes 4 rows and columns"):
        torch.jit.trace(operator.double().eval(), (normal(2, 8, 3, 5),))
