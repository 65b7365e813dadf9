"""How not to be fooled by a backtest: functions of arrays, which know no config, no run and no file.

sharpe          how much a Sharpe ratio, or the difference of two, is worth after so many trials
bootstrap       stationary-bootstrap intervals of what an account did, and of paired differences
pbo             probability of backtest overfitting (CSCV), and how surprising it is
superiority     Hansen's SPA and StepM: is any of them better than the control?
cpcv            combinatorial purged cross-validation: splits, paths, purge by event time
folds           the train and test windows of a walk-forward
walkforward     choose on the past, trade the future, chain the futures; thousands of trials
processes       tasks over cores
rewalk          the admission walk over a window of sessions: flat start, warm history
robustness      years, best trades, neighbours, fills, equal heat
verdict         the pre-registered rule, computed, in words
sequential      what may be looked at every day: CUSUM, confidence sequence, simultaneous bands
scores          probability forecasts and paired classifiers: DeLong, Brier, CORP, McNemar, Holm, Wilson

Sharpe ratios are per session here; what is annualised takes `periods`, the sessions of a year, and says so.
"""
