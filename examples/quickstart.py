"""An experience buffer in one directory: add, search, say what helped, sample.

python examples/quickstart.py [DIRECTORY]
"""

import sys
import tempfile

import numpy as np

from relive.buffer import BufferConfig, Experience, ExperienceBuffer

ANSWERS = {"cat": "it purrs", "dog": "it barks", "owl": "it hoots"}


def main(directory: str) -> None:
    random = np.random.default_rng(0)
    pictures = {name: random.standard_normal(512) for name in ANSWERS}

    with ExperienceBuffer.open(directory, BufferConfig(capacity=10_000)) as buffer:
        for name, answer in ANSWERS.items():
            buffer.add(  # durable when it returns
                Experience(
                    id=name,
                    visual=pictures[name],
                    question="What does it do?",
                    final_answer=answer,
                    total_reward=1.0,
                    model_confidence=0.6,
                    metadata={"camera": 2},
                )
            )

        # Something that looks like the dog.
        seen = pictures["dog"] + 0.3 * random.standard_normal(512)
        result = buffer.search(visual=seen, k=2)
        for hit in result:
            print(f"{hit.id}: similarity {hit.score:.2f}, {hit.experience.final_answer}")

        # It helped: from now on it is drawn more often than what did not.
        buffer.report_outcome(result.retrieval_id, result[0].id, success=True)
        buffer.report_outcome(result.retrieval_id, result[1].id, success=False)

        batch = buffer.sample(8, seed=7, replace=True)  # the seed gives the same batch again
        print("sampled:", " ".join(item.id for item in batch))

    # Everything is there again, here or in another process.
    with ExperienceBuffer.open(directory) as buffer:
        dog = buffer.get("dog")
        assert dog is not None
        print(f"dog: used {dog.retrieval_count} times, {dog.success_count} with success")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
