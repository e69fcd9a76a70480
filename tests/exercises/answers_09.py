from faults import Answers

ANSWERS = {
    "9.1": Answers(
        right=[
            """
def of_one_worker(questions, rank, workers):
    drivers = np.sort(questions.driver_id.unique())
    mine = np.array_split(drivers, workers)[rank]
    return questions[questions.driver_id.isin(mine)]
""",
            """
def of_one_worker(questions, rank, workers):
    mine = questions.driver_id.rank(method="dense") % workers == rank
    return questions[mine].sort_values("driver_id").reset_index(drop=True)
""",
        ],
        wrong={
            "Which column decides": (
                "def of_one_worker(questions, rank, workers):\n    return questions.iloc[rank::workers]"
            ),
            "when each worker is a process of its own": """
def of_one_worker(questions, rank, workers):
    place = questions.driver_id.map(lambda driver: hash(f"driver {driver}"))
    return questions[place % workers == rank]
""",
            "rows are with none of 2 workers": """
def of_one_worker(questions, rank, workers):
    return questions[questions.driver_id % (workers + 1) == rank]
""",
            "rows are with more than one of 2 workers": """
def of_one_worker(questions, rank, workers):
    return questions[questions.driver_id % workers <= rank]
""",
            "Share the drivers more evenly": """
def of_one_worker(questions, rank, workers):
    number = (questions.driver_id - 1001).clip(lower=0, upper=workers - 1)
    return questions[number == rank]
""",
            "a value of type int": (
                "def of_one_worker(questions, rank, workers):\n    return len(questions)"
            ),
            "the column 'event_timestamp' is gone": """
def of_one_worker(questions, rank, workers):
    return questions[questions.driver_id % workers == rank][['driver_id']]
""",
            "a row that isn't in the table": """
def of_one_worker(questions, rank, workers):
    mine = questions[questions.driver_id % workers == rank]
    return mine.assign(driver_id=mine.driver_id // workers)
""",
            "`of_one_worker` failed": (
                "def of_one_worker(questions, rank, workers):\n    return questions.driver"
            ),
            "your answer has the type DataFrame": "of_one_worker = questions",
        },
    ),
    "9.2": Answers(
        right=[
            """
def combine(gradients, rows):
    total = sum(gradient * count for gradient, count in zip(gradients, rows))
    return total / sum(rows)
""",
        ],
        wrong={
            "that is the plain mean": "def combine(gradients, rows):\n    return np.mean(gradients, axis=0)",
            "the sum of three means": "def combine(gradients, rows):\n    return np.sum(gradients, axis=0)",
            "grows with the number of rows": (
                "def combine(gradients, rows):\n    return np.array(rows) @ np.array(gradients)"
            ),
            "not the gradient of all rows": "def combine(gradients, rows):\n    return gradients[0]",
            "an array of the shape ()": "def combine(gradients, rows):\n    return np.mean(gradients)",
            "`combine` failed": "def combine(gradients, rows):\n    return gradients / rows",
            "a `return`": "def combine(gradients, rows):\n    np.average(gradients, axis=0, weights=rows)",
            "your answer has the type int": "combine = 3",
        },
    ),
    "9.3": Answers(
        right=[
            """
six = CustomTrainer(
    shipped.train, on_cluster, num_nodes=3, resources_per_node={"cpu": "1500m", "memory": "2Gi"}
)
""",
        ],
        wrong={
            "that asks for six pods": """
six = CustomTrainer(func=shipped.train, func_args=on_cluster, num_nodes=6)
""",
            "make 3 workers": ("six = CustomTrainer(func=shipped.train, func_args=on_cluster, num_nodes=3)"),
            "Trainer rejects a TrainJob that sets PET_NPROC_PER_NODE": """
six = CustomTrainer(func=shipped.train, func_args=on_cluster, num_nodes=3, env={"PET_NPROC_PER_NODE": "2"})
""",
            "Which argument of `CustomTrainer` says how many": """
six = CustomTrainer(func=shipped.train, func_args=on_cluster, resources_per_node={"cpu": "6"})
""",
            "make 18 workers": """
six = CustomTrainer(func=shipped.train, func_args=on_cluster, num_nodes=3, resources_per_node={"cpu": 6})
""",
            "pass `func=shipped.train`": """
six = CustomTrainer(func=distributed.work, func_args=inputs, num_nodes=3, resources_per_node={"cpu": "2"})
""",
            "and `func_args=on_cluster`": """
six = CustomTrainer(func=shipped.train, func_args=inputs, num_nodes=3, resources_per_node={"cpu": "2"})
""",
            "doesn't train with `on_cluster`": """
six = CustomTrainer(
    func=trainer.train_and_lose_a_worker, func_args=on_cluster, num_nodes=3, resources_per_node={"cpu": "2"}
)
""",
            "your answer has the type dict": "six = {'num_nodes': 3}",
        },
    ),
}
