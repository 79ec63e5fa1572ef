// Not a module, so that it runs before the first paint: a dark page must not flash white.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem('emotion2vec-service.theme');
  } catch {
    // storage is forbidden
  }
  if (chosen === 'light' || chosen === 'dark') {
    document.documentElement.dataset.theme = chosen;
  }
}
