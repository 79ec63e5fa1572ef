// A classic script: it runs before the first paint, so that a dark page does not flash white.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem('emotion2vec-service.theme');
  } catch {
    // storage is disabled
  }
  if (chosen === 'light' || chosen === 'dark') {
    document.documentElement.dataset.theme = chosen;
  }
}
