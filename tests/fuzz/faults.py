"""How bad the world is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities of what can go wrong; per message, per pull, per step, or per request.

    Attributes:
        forsake: a cancellation or withdrawal is lost; nothing may depend on them.
        lose, repeat, delay: a control message is lost, sent twice, or overtaken by later ones.
        corrupt, fail: a pulled chunk arrives with a flipped byte, or not at all.
        jump: all leases of a worker run out at once, as after a pause of its machine.
        stall: a transfer waits for up to a lease.
        land_late: bytes of a pull land a second time, later, as long as no fence forbids it.
        crash_source, crash_sink, crash_gateway: one of them dies at this step of a handoff.
        let_go: a source's engine lets go of KV that it should hold, where commits rest on its word.
        ghost: an earlier start of the source offers and seals the same handoff over other bytes.
        leave: the client leaves.
        hurry: the request has so little time that its deadline strikes in the middle.
        isolate: a worker is cut off from the other workers for a while, on purpose.
        forge: a grant is altered on its way.
        picky: a worker accepts KV of its own numeric provenance only.
        differ: the workers of this world do not lay their KV out alike.
        misinform: the gateway reserves with what another worker said of its KV.
    """

    forsake: float = 0.3
    lose: float = 0.01
    repeat: float = 0.02
    delay: float = 0.05
    corrupt: float = 0.02
    fail: float = 0.01
    jump: float = 0.04
    stall: float = 0.04
    land_late: float = 0.05
    crash_source: float = 0.002
    crash_sink: float = 0.002
    crash_gateway: float = 0.0005
    let_go: float = 0.02
    ghost: float = 0.02
    leave: float = 0.03
    hurry: float = 0.02
    isolate: float = 0.01
    forge: float = 0.01
    picky: float = 0.2
    differ: float = 0.6
    misinform: float = 0.01
