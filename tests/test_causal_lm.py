"""Causal language modelling against its definition, written out as a loop."""

from rows import bits, build, random_record


def test_features_against_a_loop():
    of = build("causal_lm")
    counted = 0
    for seed in range(100):
        given = random_record(48, seed)
        made = of.features(given, bits(3, seed))
        tokens, segments = given["tokens"], given["segments"]
        for t in range(48):
            assert made["tokens"][t] == tokens[t]
            assert made["segments"][t] == segments[t]
            assert made["positions"][t] == given["positions"][t]
            # Within its document the next token is predicted, the row's last one too.
            predicted = segments[t] > 0 and segments[t] == segments[t + 1]
            assert made["weights"][t] == predicted
            if predicted:
                assert made["targets"][t] == tokens[t + 1]
                counted += 1
    assert counted > 1000
