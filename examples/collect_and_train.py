"""The main job from Python: collect a data set, look into it, fit a critic."""

import epvf_data

config = epvf_data.collect_config("cartpole", envs=1024)
report = epvf_data.collect(config, "cartpole.zarr")
print(f"{report.rows} policies, {report.env_steps_per_second:,.0f} env steps/s, best return {report.return_max:.0f}")

table = epvf_data.open("cartpole.zarr").table()
best = table.mean_returns().argmax()
print(f"row {best} is the best: {table.spec.size} parameters, {len(table.probe_states)} probing states")

result = epvf_data.train_offline("cartpole.zarr", run_dir="cartpole-run")
print(result.verdict)
